"""`fleet map` names each caller whose committed expectations a provider no longer meets, and no other caller."""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.check.findings import Level
from fleet.client import uses
from fleet.judges.openapi_diff import find_breaking_changes
from fleet.map.facts import Facts
from fleet.map.model import Map
from fleet.map.reader import read_folders
from fleet.map.uses import findings
from fleet.service.openapi import Document
from tests.support.commands import git

Node = dict[str, Any]
PATH = "/v1/customers/{customer_id}"


def body(schema: str) -> Node:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def offered() -> Node:
    """The document of the provider: an operation to read a customer, and an operation to create a customer."""
    identity = {"name": "customer_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    fields = {"type": "array", "items": {"type": "string"}}
    parameters = [identity, {"name": "fields", "in": "query", "schema": fields}]
    missing = {"404": {"description": "", **body("Problem")}}
    get = {
        "operationId": "get_customer",
        "parameters": parameters,
        "responses": {"200": {"description": "", **body("Customer")}, **missing},
    }
    post = {
        "operationId": "create_customer",
        "requestBody": {"required": True, **body("NewCustomer")},
        "responses": {"201": {"description": "", **body("Customer")}},
        "security": [{"tokens": ["customers:write"]}],
    }
    text = {"type": "string", "maxLength": 40}
    customer = {
        "id": text,
        "level": {"type": "string", "enum": ["gold", "bronze"]},
        "note": text,
        "age": {"type": "integer"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "customers", "version": "1"},
        "paths": {
            PATH: {"get": get},
            "/v1/customers": {"post": post},
            "/v1/other": {"get": {**get, "operationId": "other", "parameters": []}},
        },
        "components": {
            "schemas": {
                "Customer": {"type": "object", "required": ["id", "level", "note", "age"], "properties": customer},
                "NewCustomer": {
                    "type": "object",
                    "required": ["level"],
                    "properties": {"level": customer["level"], "note": text},
                },
                "Problem": {"type": "object", "properties": {"code": text}},
            },
            "securitySchemes": {"tokens": {"type": "oauth2", "flows": {}}},
        },
    }


def used() -> Node:
    """The caller reads neither the note nor the age of a customer."""
    content = uses.select(Document(offered()), ["get_customer", "create_customer"], None, lambda _: None).content
    customer = content["components"]["schemas"]["Customer"]
    for name in ("note", "age"):
        del customer["properties"][name]
        customer["required"].remove(name)
    return uses.pruned(content)


def found(now: Node | None) -> list[tuple[tuple[str, ...], Level, str]]:
    callers = [Facts("billing", uses={"customers": used(), "twilio": used()}), Facts("ledger")]
    map_ = Map([*callers, Facts("customers")], offered={} if now is None else {"customers": now})
    return [(one.services, one.finding.level, one.finding.reason) for one in findings(map_)]


def get(content: Node) -> Node:
    return content["paths"][PATH]["get"]


def post(content: Node) -> Node:
    return content["paths"]["/v1/customers"]["post"]


def schema(content: Node, name: str) -> Node:
    return content["components"]["schemas"][name]


Change = Callable[[Node], object]

HARMLESS: dict[str, Change] = {
    "nothing": lambda _: None,
    "an operation that nobody uses is gone": lambda it: it["paths"].pop("/v1/other"),
    "a new operation": lambda it: it["paths"].update({"/v2": {"get": {"responses": {"200": {"description": ""}}}}}),
    "a field that the caller does not read is gone": lambda it: schema(it, "Customer")["properties"].pop("note"),
    "a field that the caller does not read has another type": lambda it: schema(it, "Customer")["properties"].update(
        age={"type": "string"}
    ),
    "a new field in the answer": lambda it: schema(it, "Customer")["properties"].update(since={"type": "string"}),
    "a new optional field of the request": lambda it: schema(it, "NewCustomer")["properties"].update(
        tag={"type": "string"}
    ),
    "a new optional parameter": lambda it: get(it)["parameters"].append(
        {"name": "deep", "in": "query", "schema": {"type": "boolean"}}
    ),
    "a longer text is accepted": lambda it: schema(it, "NewCustomer")["properties"].update(
        note={"type": "string", "maxLength": 80}
    ),
    "a new failure": lambda it: get(it)["responses"].update({"410": {"description": ""}}),
    "other words": lambda it: get(it).update(description="Else", summary="Else", tags=["else"]),
    "another address": lambda it: it.update(servers=[{"url": "https://customers.example.com"}]),
    "another address of an operation": lambda it: get(it).update(servers=[{"url": "https://customers.example.com"}]),
    "what the provider calls and links to": lambda it: (
        it.update(webhooks={"created": {}}, jsonSchemaDialect="https://spec.openapis.org/oas/3.1/dialect/base"),
        get(it).update(callbacks={"changed": {}}),
        get(it)["responses"]["200"].update(links={"orders": {"operationId": "other"}}),
    ),
    "no scope is needed": lambda it: post(it).pop("security"),
    "the path's parameter has another name": lambda it: (
        it["paths"].update({"/v1/customers/{id}": it["paths"].pop(PATH)}),
        it["paths"]["/v1/customers/{id}"]["get"]["parameters"][0].update(name="id"),
    ),
}
BREAKING: dict[str, tuple[Change, str]] = {
    "the operation is gone": (lambda it: it["paths"].pop(PATH), f"GET {PATH} is gone"),
    "the path has changed": (
        lambda it: it["paths"].update({"/v2/customers/{customer_id}": it["paths"].pop(PATH)}),
        "is gone",
    ),
    "the method has changed": (lambda it: it["paths"][PATH].update(put=it["paths"][PATH].pop("get")), "is gone"),
    "a parameter is gone": (lambda it: get(it)["parameters"].pop(1), "the query parameter fields was removed"),
    "a parameter has another type": (
        lambda it: get(it)["parameters"][1].update(schema={"type": "array", "items": {"type": "integer"}}),
        "the query parameter fields",
    ),
    "a parameter has another style": (
        lambda it: get(it)["parameters"][1].update(explode=False),
        "explode is false, was true",
    ),
    "a parameter is required": (
        lambda it: get(it)["parameters"][1].update(required=True),
        "the query parameter fields is required now",
    ),
    "a new parameter is required": (
        lambda it: get(it)["parameters"].append(
            {"name": "tenant", "in": "header", "required": True, "schema": {"type": "string"}}
        ),
        "the header parameter tenant is required now",
    ),
    "the parameter of the path has another format": (
        lambda it: get(it)["parameters"][0].update(schema={"type": "integer"}),
        "the path parameter customer_id",
    ),
    "a field is gone": (lambda it: schema(it, "Customer")["properties"].pop("level"), "200: level"),
    "a field may be missing": (lambda it: schema(it, "Customer")["required"].remove("level"), "200: level"),
    "a field may be null": (
        lambda it: schema(it, "Customer")["properties"].update(id={"type": ["string", "null"], "maxLength": 40}),
        "200: id",
    ),
    "a field has another type": (
        lambda it: schema(it, "Customer")["properties"].update(id={"type": "integer"}),
        "200: id",
    ),
    "a field has a new value": (
        lambda it: schema(it, "Customer")["properties"]["level"]["enum"].append("silver"),
        "level",
    ),
    "a field of the request is required": (
        lambda it: schema(it, "NewCustomer")["required"].append("note"),
        "the request: note",
    ),
    "a new field of the request is required": (
        lambda it: (
            schema(it, "NewCustomer")["properties"].update(tenant={"type": "string"}),
            schema(it, "NewCustomer")["required"].append("tenant"),
        ),
        "the request: tenant",
    ),
    "a value of the request is refused": (
        lambda it: schema(it, "NewCustomer")["properties"].update(level={"type": "string", "enum": ["gold"]}),
        "the request: level",
    ),
    "a text of the request is shorter": (
        lambda it: schema(it, "NewCustomer")["properties"].update(note={"type": "string", "maxLength": 20}),
        "the request: note",
    ),
    "the body is required": (
        lambda it: get(it).update(requestBody={"required": True, **body("NewCustomer")}),
        "the request needs a body now",
    ),
    "another media type": (
        lambda it: get(it)["responses"]["200"].update(content={"text/csv": {}}),
        "200 is gone",
    ),
    "a status is no longer answered": (
        lambda it: post(it)["responses"].update({"202": post(it)["responses"].pop("201")}),
        "the operation no longer answers 201",
    ),
    "the scope is no longer enough": (
        lambda it: post(it).update(security=[{"tokens": ["customers:write", "customers:admin"]}]),
        "customers:admin",
    ),
    "a scope is needed": (
        lambda it: get(it).update(security=[{"tokens": []}]),
        "the operation requires tokens, and nothing was enough",
    ),
}


@pytest.mark.parametrize("change", HARMLESS)
def test_a_change_that_no_caller_notices_is_not_reported(change: str) -> None:
    HARMLESS[change](now := copy.deepcopy(offered()))
    assert found(now) == []


@pytest.mark.parametrize("change", BREAKING)
def test_a_change_that_breaks_a_caller_is_reported_with_the_caller_and_the_field(change: str) -> None:
    edit, reason = BREAKING[change]
    edit(now := copy.deepcopy(offered()))
    reported = found(now)
    assert reported
    assert {(services, level) for services, level, _ in reported} == {(("customers", "billing"), Level.ERROR)}
    assert any(reason in one for _, _, one in reported), reported
    assert all("billing uses the API (specs/uses/customers.json)" in one for _, _, one in reported)


def test_a_deprecated_operation_that_is_gone_breaks_its_callers() -> None:
    was = used()
    get(was)["deprecated"] = True
    (now := copy.deepcopy(offered()))["paths"].pop(PATH)
    map_ = Map([Facts("billing", uses={"customers": was}), Facts("customers")], offered={"customers": now})
    assert [one.finding.level for one in findings(map_)] == [Level.ERROR]


def test_all_uses_of_a_caller_share_one_limit_and_hide_no_other_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    monkeypatch.setattr("fleet.map.uses.find_breaking_changes", spend(find_breaking_changes))
    names = [f"customers-{number}" for number in range(20)]
    callers = [Facts("slow", uses=dict.fromkeys(names, used())), Facts("billing", uses={names[0]: used()})]
    (now := copy.deepcopy(offered()))["paths"].pop(PATH)
    begin = time.process_time()
    reported = [
        (one.services, one.finding.level)
        for one in findings(Map([*callers, *map(Facts, names)], offered=dict.fromkeys(names, now)))
    ]
    assert time.process_time() - begin < 2
    assert reported[-2:] == [(("slow",), Level.WARNING), ((names[0], "billing"), Level.ERROR)]


def spend(compare: Callable[[Document, Document], Any]) -> Callable[[Document, Document], Any]:
    def slow(old: Document, new: Document) -> Any:
        end = time.process_time() + 0.15
        while time.process_time() < end:
            pass
        return compare(old, new)

    return slow


@pytest.mark.parametrize(
    "now", [None, {"openapi": "3.1.0", "paths": []}, {"openapi": "3.1.0", "paths": {"/": {"get": 1}}}]
)
def test_a_document_that_cannot_be_compared_is_a_warning(now: Node | None) -> None:
    [(services, level, _)] = found(now)
    assert (services, level) == (("customers", "billing"), Level.WARNING)


def test_a_status_that_is_no_status_hides_no_other_finding() -> None:
    get(now := copy.deepcopy(offered()))["responses"][""] = {"description": ""}
    assert [level for _, level, _ in found(now)] == [Level.WARNING]


def test_the_uses_and_the_documents_are_read_from_the_repositories(tmp_path: Path) -> None:
    changed = offered()
    get(changed)["parameters"].pop(1)
    for name, path, content in (
        ("billing", "specs/uses/customers.json", used()),
        ("customers", "specs/openapi.json", changed),
    ):
        folder = tmp_path / name
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(json.dumps(content, indent=2))
        (folder / ".copier-answers.yml").write_text(f"_commit: v1.0.0\n_src_path: nowhere\nservice_name: {name}\n")
        git(folder, "init", "--quiet")
        git(folder, "add", "--all")
        git(folder, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "Begin")
    [one] = findings(read_folders([tmp_path / "billing", tmp_path / "customers"]))
    assert one.finding.reason.endswith(f"GET {PATH}: the query parameter fields was removed")
    line = json.dumps(changed, indent=2).splitlines()[one.finding.line - 1]
    assert '"get": {' in line
