"""Each convention about messages, broken in one way."""

import json
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

SPEC = "specs/asyncapi.json"
ISSUED = "specs/messages/billing.invoice-issued.v1.json"


def message(name: str, *actions: str) -> Broken:
    """Add another event to the document, with its golden file, and with its test if it is consumed."""
    message = {"name": name, "tags": [{"name": "event"}]}
    operations = {
        f"{action}.{name}": {"action": action, "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}]}
        for action in actions
    }

    def change(document: Any) -> None:
        document["components"]["messages"][name] = message
        document["operations"] |= operations

    golden = name.partition(".")[2].replace(".", "_").replace("-", "_")
    return both(
        change_json(SPEC, change),
        append(f"tests/messaging/golden/{golden}.json", "{}\n"),
        append(
            "tests/messaging/test_more.py", f'async def test_it(mailbox):\n    await mailbox.receive("{name}", {{}})\n'
        ),
    )


def schema(name: str, **changes: str) -> Broken:
    content = {"$id": f"urn:message:{name}", "title": "ThingV1", "x-kind": "event", "type": "object", **changes}
    return append(f"specs/messages/{name}.json", json.dumps(content))


def without(name: str) -> Broken:
    """Remove a message that the service sends."""

    def change(document: Any) -> None:
        del document["components"]["messages"][name]
        del document["operations"][f"send.{name}"]

    return both(change_json(SPEC, change), remove(f"specs/messages/{name}.json"))


MUTATIONS: Mutations = {
    "messages and no document": (
        "event-document",
        remove(SPEC),
        "the code sends or receives messages, and the document is missing",
    ),
    "an older AsyncAPI": (
        "event-document",
        edit(SPEC, '"asyncapi": "3.1.0"', '"asyncapi": "2.6.0"'),
        "the document has AsyncAPI version 2.6.0",
    ),
    "a message of nobody": (
        "event-document",
        message("billing.invoice-lost.v1"),
        "billing.invoice-lost.v1 is neither sent nor received",
    ),
    "a name that is not kebab-case": (
        "event-names",
        message("approvals.InvoiceRefused.v1", "receive"),
        "approvals.InvoiceRefused.v1 is not <service>.<name>.v<N> in kebab-case",
    ),
    "a name without version": (
        "event-names",
        message("approvals.invoice-refused", "receive"),
        "approvals.invoice-refused is not <service>.<name>.v<N>",
    ),
    "the name of another service": (
        "event-names",
        both(message("shipping.parcel-sent.v1", "send"), schema("shipping.parcel-sent.v1")),
        "this service owns shipping.parcel-sent.v1, whose name begins with another service",
    ),
    "no schema": ("event-schemas", remove(ISSUED), "there is no schema of billing.invoice-issued.v1"),
    "a schema of nothing": ("event-schemas", schema("billing.gone.v1"), "a message that this service does not own"),
    "a schema that is another's": (
        "event-schemas",
        edit(ISSUED, "urn:message:billing.invoice-issued.v1", "urn:message:billing.invoice-issued.v2"),
        "the $id of the schema is not urn:message:billing.invoice-issued.v1",
    ),
    "a field that others know is gone": (
        "event-compatible",
        change_json(ISSUED, lambda schema: schema["properties"].pop("note")),
        "billing.invoice-issued.v1 has changed in a way that breaks other services: note: was removed Within a version only",
    ),
    "a message that others know is gone": (
        "event-compatible",
        without("billing.invoice-issued.v1"),
        "billing.invoice-issued.v1 is gone. Bring InvoiceIssuedV1 back",
    ),
    "retired without a reason": (
        "event-compatible",
        append("specs/retired.txt", "billing.paid.v1\n"),
        "specs/retired.txt has no reason why nobody needs billing.paid.v1 any more",
    ),
    "retired and still there": (
        "event-compatible",
        append("specs/retired.txt", "billing.invoice-issued.v1 nobody listens\n"),
        "billing.invoice-issued.v1 is in specs/retired.txt, and its number is used up",
    ),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


def test_a_job_of_a_queue_of_the_service_belongs_to_the_service(service: Path) -> None:
    message("billing--reports.render-report.v1", "send")(service)
    schema("billing--reports.render-report.v1")(service)
    assert texts_of(service, "event-names") == []


def test_a_retired_message_may_be_removed_and_another_may_come(service: Path) -> None:
    without("billing.invoice-issued.v1")(service)
    append("specs/retired.txt", "# name and reason\nbilling.invoice-issued.v1 nobody has listened since 2027-01\n")(
        service
    )
    both(message("billing.invoice-paid.v1", "send"), schema("billing.invoice-paid.v1"))(service)
    assert violations(service) == []


def test_a_document_that_is_malformed_is_reported_and_stops_no_other_check(service: Path) -> None:
    (service / SPEC).write_text('{"asyncapi": "3.0.0"}')
    found = violations(service)
    assert all(
        "specs/asyncapi.json does not have the structure that `make specs` writes" in one.reason for one in found
    )
    assert "event-document" in {one.id for one in found}
