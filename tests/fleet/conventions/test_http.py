"""Each convention about the HTTP API, broken in one way."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.conventions.mutations import (
    Broken,
    Mutations,
    append,
    both,
    change_json,
    each_alone,
    edit,
    remove,
    texts_of,
    violations,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]

SPEC = "specs/openapi.json"


def operation(path: str, method: str = "get", /, **changes: Any) -> Broken:
    """Add an operation that is valid except for the changes, and a test that calls it. Ellipsis leaves a key out."""
    content = {
        "operationId": re.sub(r"\W+", "_", f"{method}{path}").strip("_").lower(),
        "summary": "Reminders",
        "description": "What is due.",
        "responses": {"200": {"description": "It."}, "422": {"$ref": "#/components/responses/InvalidRequest"}},
        **changes,
    }
    wanted = {key: value for key, value in content.items() if value is not ...}
    url = path.replace("{", "").replace("}", "")
    return both(
        change_json(SPEC, lambda document: document["paths"].setdefault(path, {}).update({method: wanted})),
        append("tests/api/test_reminders.py", f'async def test_it(client):\n    await client.{method}("{url}")\n'),
    )


def answers(status: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "422": {"$ref": "#/components/responses/InvalidRequest"},
        status: {"description": "It.", "content": {media: {"schema": schema} for media, schema in content.items()}},
    }


ARRAY = answers("200", {"application/json": {"type": "array"}})
PAGE = answers("200", {"application/json": {"$ref": "#/components/schemas/InvoicePage"}})
AFTER = {"name": "after", "in": "query", "schema": {"type": "string"}}
LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}}
UNLIMITED = {"name": "limit", "in": "query", "schema": {"type": "integer"}}


def name_callers(service: Path) -> None:
    """Take the policy away that lets every pod of the namespace in: a service with identity has none."""
    path = service / "deploy/base/networkpolicy.yaml"
    own, without, _ = path.read_text().partition("---\n# Pods of the service's own namespace")
    assert without, f"{path} has no such policy: mend this mutation"
    path.write_text(own)


WITH_IDENTITY = both(edit(".copier-answers.yml", "auth: none", "auth: oidc"), name_callers)


def secured(security: object, **more: object) -> Broken:
    """Answer `auth: oidc`, and give every operation this security. None leaves the security out."""
    described = {} if security is None else {"security": security}

    def change(document: Any) -> None:
        for operations in document["paths"].values():
            for each in operations.values():
                each.update(described | more)

    return both(WITH_IDENTITY, change_json(SPEC, change))


MUTATIONS: Mutations = {
    "no scopes although callers show tokens": (
        "http-security",
        secured(None),
        "GET /v1/invoices: names no scopes, and no reason why everybody may call it",
    ),
    "no document": ("http-document", remove(SPEC), "there is no document of the API"),
    "an older OpenAPI": (
        "http-document",
        edit(SPEC, '"openapi": "3.1.0"', '"openapi": "3.0.3"'),
        "the document has OpenAPI version 3.0.3",
    ),
    "a path without version": (
        "http-versioned-paths",
        operation("/due/reminders"),
        "GET /due/reminders: the path does not begin with a version",
    ),
    "a path in camelCase": (
        "http-path-names",
        operation("/v1/dueReminders", "post"),
        "POST /v1/dueReminders: `dueReminders` is not kebab-case",
    ),
    "a parameter in camelCase": (
        "http-path-names",
        operation("/v1/invoices/{invoiceId}/reminder"),
        "the parameter `invoiceId` is not snake_case",
    ),
    "a search in a collection in the singular": (
        "http-path-names",
        operation("/v1/reminder/search", parameters=[LIMIT, AFTER], responses=PAGE),
        "GET /v1/reminder/search: `reminder` is a collection, and its name is not a plural",
    ),
    "a search without a collection": (
        "http-path-names",
        operation("/v1/search", parameters=[LIMIT, AFTER], responses=PAGE),
        "GET /v1/search: `search` is a collection, and its name is not a plural",
    ),
    "a search without pages": (
        "http-pagination",
        operation("/v1/invoices/search", parameters=[LIMIT], responses=PAGE),
        "the operation answers a list, and has no parameter `after` to continue from",
    ),
    "a collection in the singular": (
        "http-path-names",
        both(operation("/v1/reminder/{reminder_id}"), operation("/v1/reminder", "post")),
        "POST /v1/reminder: `reminder` is a collection, and its name is not a plural",
    ),
    "no operationId": (
        "http-operation-ids",
        operation("/v1/due", operationId=...),
        "GET /v1/due: there is no operationId",
    ),
    "an operationId twice": (
        "http-operation-ids",
        operation("/v1/due", operationId="list_invoices"),
        "GET /v1/due: the operationId `list_invoices` is used 2 times",
    ),
    "an operationId in camelCase": (
        "http-operation-ids",
        operation("/v1/due", operationId="listDue"),
        "the operationId `listDue` is not snake_case",
    ),
    "no docstring": ("http-summaries", operation("/v1/due", description=...), "GET /v1/due: there is no description"),
    "no failure": (
        "http-problems",
        operation("/v1/due", responses={"200": {"description": "It."}}),
        "GET /v1/due: no failure of the caller (4xx) is documented",
    ),
    "a failure as JSON": (
        "http-problems",
        operation("/v1/due", responses=answers("404", {"application/json": {"$ref": "#/components/schemas/Problem"}})),
        "404 answers application/json instead of application/problem+json",
    ),
    "a failure of one's own": (
        "http-problems",
        operation("/v1/due", responses=answers("503", {"application/problem+json": {"type": "object"}})),
        "503 has another schema than the chassis' Problem",
    ),
    "a list without pages": (
        "http-pagination",
        operation("/v1/reminders", parameters=[LIMIT, AFTER], responses=ARRAY),
        "the answer is not a page: it has no `items` and no `next_cursor`",
    ),
    "a list of any length": (
        "http-pagination",
        operation("/v1/reminders", parameters=[AFTER, UNLIMITED], responses=PAGE),
        "the parameter `limit` has no maximum",
    ),
    "a page without a limit": (
        "http-pagination",
        operation("/v1/reminders", parameters=[AFTER], responses=PAGE),
        "the operation answers a list, and has no parameter `limit`",
    ),
    "a page without a next one": (
        "http-pagination",
        operation("/v1/reminders", parameters=[LIMIT], responses=PAGE),
        "the operation answers a list, and has no parameter `after` to continue from",
    ),
    "a field that callers know is gone": (
        "http-breaking",
        change_json(
            SPEC, lambda document: document["components"]["schemas"]["InvoiceDetails"]["properties"].pop("note")
        ),
        "GET /v1/invoices/{invoice_id}: 200: note was removed",
    ),
    "an operation asks who calls": (
        "http-breaking",
        change_json(
            SPEC,
            lambda document: (
                document["paths"]["/v1/invoices/{invoice_id}"]["get"].update(security=[{"token": []}]),
                document["components"].update(securitySchemes={"token": {"type": "http", "scheme": "bearer"}}),
            ),
        ),
        "GET /v1/invoices/{invoice_id}: security: the operation requires token, and nothing was enough",
    ),
    "an operation is gone": (
        "http-breaking",
        change_json(SPEC, lambda document: document["paths"]["/v1/invoices/{invoice_id}"].pop("delete")),
        "DELETE /v1/invoices/{invoice_id} is gone",
    ),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


def test_an_operation_in_order_breaks_nothing_and_is_found_by_its_line(service: Path) -> None:
    operation("/v1/invoices/{invoice_id}/reminders", parameters=[LIMIT, AFTER], responses=PAGE)(service)
    operation("/v1/invoices/search", parameters=[LIMIT, AFTER], responses=PAGE)(service)
    assert violations(service) == []
    operation("/v1/due", description=...)(service)
    (found,) = violations(service)
    lines = (service / SPEC).read_text().splitlines()
    assert lines[found.line - 2 : found.line] == ['    "/v1/due": {', '      "get": {']


@pytest.mark.parametrize("content", [[], {"openapi": "3.1.0", "paths": {"/v1/due": {"get": None}}}])
def test_a_document_that_is_malformed_is_reported_and_stops_no_other_check(service: Path, content: Any) -> None:
    (service / SPEC).write_text(json.dumps(content))
    found = violations(service)
    assert all("specs/openapi.json is not an OpenAPI document" in one.reason for one in found)
    assert "http-document" in {one.id for one in found}


@pytest.mark.parametrize(
    ("security", "more", "found"),
    [
        ([{"accessToken": ["invoices:read"]}], {}, set()),
        ([], {"x-public": "the price list is on our website"}, set()),
        ([], {}, {"names no scopes, and no reason why everybody may call it"}),
        ([], {"x-public": " "}, {"names no scopes, and no reason why everybody may call it"}),
        ([{"accessToken": []}], {}, {"can be called without any scope"}),
        ([{"accessToken": ["invoices:read"]}, {}], {}, {"can be called without any scope"}),
    ],
    ids=str,
)
def test_each_operation_demands_scopes_or_has_a_reason_to_be_public(
    service: Path, security: object, more: dict[str, object], found: set[str]
) -> None:
    secured(security, **more)(service)
    assert {what.partition(": ")[2] for what in texts_of(service, "http-security")} == found


def test_a_service_whose_callers_show_no_tokens_names_no_scopes(service: Path) -> None:
    assert texts_of(service, "http-security") == []
