"""The AsyncAPI document and the message schemas: their contents, and their check by the official parser."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from chassis import fields
from chassis.commands import main
from chassis.messages import Contract, Event, Job, Messages, OnEvent, OnJob
from chassis.messaging.specs import asyncapi
from chassis.messaging.specs.schemas import described
from chassis.sagas import Run, Sagas, saga
from chassis.service import Service
from jsonschema import Draft202012Validator
from pydantic import Field

from tests.support import npm
from tests.support.needs import ASYNCAPI_PARSER

# --- a service with every kind of message --------------------------------------------------------------------------


class Currency(StrEnum):
    EUR = "EUR"
    USD = "USD"


class Line(Contract):
    """One sold item."""

    text: Annotated[str, Field(max_length=80)]
    amount: Annotated[Decimal, *fields.decimal(12, 2)]
    parts: list["Line"] = Field(default_factory=list)


class ByCard(Contract):
    method: Literal["card"]
    last_digits: Annotated[str, Field(pattern="^[0-9]{4}$")]


class ByTransfer(Contract):
    method: Literal["transfer"]
    iban: str


class SoldV1(Contract):
    """A customer bought something."""

    sale_id: UUID
    number: Annotated[int, Field(gt=0)]
    currency: Currency
    lines: list[Line]
    position: tuple[int, int] = (0, 0)
    total: fields.MoneyField
    payment: Annotated[ByCard | ByTransfer, Field(discriminator="method")]
    note: Annotated[str, Field(description="As the customer wrote it.")] | None = None
    rates: dict[str, Decimal] = Field(default_factory=dict)
    occurred_at: datetime


class PaidV1(Contract):
    sale_id: UUID
    amount: Decimal


class RemindV1(Contract):
    sale_id: UUID
    tone: str = "kind"
    fee: Decimal = Decimal(0)


class PrintV2(Contract):
    sale_id: UUID


@dataclass(frozen=True)
class Sold:
    sale_id: UUID


@dataclass(frozen=True)
class Remind:
    sale_id: UUID


@dataclass(frozen=True)
class Print:
    sale_id: UUID


async def handle(message: Any, uow: Any) -> None: ...


MESSAGES = Messages(
    "shop",
    outgoing=(
        Event(Sold, SoldV1, aggregate="sale", key="sale_id"),
        Job(Remind, RemindV1),
        Job(Print, PrintV2, to="printing"),
    ),
    incoming=(
        OnEvent("payments.paid.v1", PaidV1, handle),
        OnEvent("shop.sold.v1", PrintV2, handle),
        OnJob(RemindV1, handle),
    ),
)


@pytest.fixture
def shop(service: Service) -> Service:
    return dataclasses.replace(service, name="shop", messages=MESSAGES)


@pytest.fixture
def document(shop: Service) -> dict[str, Any]:
    return asyncapi.document(shop)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder for specs/."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "specs"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- the document ---------------------------------------------------------------------------------------------------


def test_there_is_a_channel_for_each_message_and_an_operation_for_each_direction(document: dict[str, Any]) -> None:
    assert [(name, channel["address"]) for name, channel in document["channels"].items()] == [
        (name, name) for name in ("payments.paid.v1", "printing.print.v2", "shop.remind.v1", "shop.sold.v1")
    ]
    assert {
        (operation["action"], operation["channel"]["$ref"].removeprefix("#/channels/"))
        for operation in document["operations"].values()
    } == {
        ("send", "shop.sold.v1"),
        ("receive", "shop.sold.v1"),
        ("send", "shop.remind.v1"),
        ("receive", "shop.remind.v1"),
        ("send", "printing.print.v2"),
        ("receive", "payments.paid.v1"),
    }


def test_a_message_says_its_kind_its_headers_and_its_content_type(document: dict[str, Any]) -> None:
    messages = document["components"]["messages"]
    assert {name: message["tags"] for name, message in messages.items()} == {
        "payments.paid.v1": [{"$ref": "#/components/tags/event"}],
        "printing.print.v2": [{"$ref": "#/components/tags/job"}],
        "shop.remind.v1": [{"$ref": "#/components/tags/job"}],
        "shop.sold.v1": [{"$ref": "#/components/tags/event"}],
    }
    assert {message["contentType"] for message in messages.values()} == {"application/json"}
    assert {message["headers"]["$ref"] for message in messages.values()} == {"#/components/schemas/headers"}
    headers = document["components"]["schemas"]["headers"]
    assert headers["required"] == ["id", "type", "key"]
    assert headers["properties"].keys() == {
        "id",
        "type",
        "key",
        "traceparent",
        "tracestate",
        "subject",
        "content-type",
    }


def test_sent_messages_are_described_as_written_and_received_messages_as_read(document: dict[str, Any]) -> None:
    def fields_of(message: str) -> dict[str, Any]:
        name = document["components"]["messages"][message]["payload"]["$ref"].removeprefix("#/components/schemas/")
        return document["components"]["schemas"][name]["properties"]

    # The service also handles its own event, by a contract with fewer fields, which the document does not show.
    assert fields_of("shop.sold.v1").keys() == SoldV1.model_fields.keys()
    written = document["components"]["schemas"]["SoldV1"]["properties"]["rates"]["additionalProperties"]
    assert written["type"] == "string"
    assert [one["type"] for one in fields_of("payments.paid.v1")["amount"]["anyOf"]] == ["number", "string"]
    assert fields_of("shop.remind.v1")["tone"]["default"] == "kind"
    # Other services may send this job too, so the schema is of the accepted bodies.
    assert [one["type"] for one in fields_of("shop.remind.v1")["fee"]["anyOf"]] == ["number", "string"]


def test_the_document_does_not_depend_on_the_order_of_the_lines(shop: Service) -> None:
    other = Messages("shop", outgoing=MESSAGES.outgoing[::-1], incoming=MESSAGES.incoming[::-1])
    documents = [asyncapi.document(dataclasses.replace(shop, messages=messages)) for messages in (MESSAGES, other)]
    assert json.dumps(documents[0]) == json.dumps(documents[1])


# --- the verdict of validators ----------------------------------------------------------------------------------------

CHECK = """
const { Parser } = require('@asyncapi/parser');
new Parser().parse(require('fs').readFileSync(0, 'utf8')).then(parsed => {
  const errors = parsed.diagnostics.filter(one => one.severity === 0);
  for (const one of errors) console.error(one.path.join('.') + ': ' + one.message);
  if (!parsed.document || errors.length) process.exit(1);
  console.log(JSON.stringify(parsed.document.allOperations().all().map(one =>
    [one.action(), one.channels().all()[0].address(), one.messages().all()[0].payload().title()])));
});
"""

Parse = Callable[[dict[str, Any]], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def parse() -> Parse:
    """AsyncAPI's own parser, from npm."""
    folder = npm.installed(ASYNCAPI_PARSER)

    def parse(document: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", "-e", CHECK], cwd=folder, input=json.dumps(document), capture_output=True, text=True, timeout=300
        )

    return parse


@pytest.mark.slow
@pytest.mark.xdist_group("npm")
def test_the_official_parser_accepts_the_document_and_reads_our_meaning(document: dict[str, Any], parse: Parse) -> None:
    parsed = parse(document)
    assert parsed.returncode == 0, parsed.stderr
    assert sorted(json.loads(parsed.stdout)) == [
        ["receive", "payments.paid.v1", "PaidV1"],
        ["receive", "shop.remind.v1", "RemindV1"],
        ["receive", "shop.sold.v1", "SoldV1"],
        ["send", "printing.print.v2", "PrintV2"],
        ["send", "shop.remind.v1", "RemindV1"],
        ["send", "shop.sold.v1", "SoldV1"],
    ]


async def settle(run: Run, sold: SoldV1) -> None: ...


@pytest.mark.slow
@pytest.mark.xdist_group("npm")
def test_the_official_parser_accepts_the_versions_of_sagas(shop: Service, parse: Parse) -> None:
    sagas = Sagas([saga("settle", version=2)(settle)], idle=timedelta(minutes=1), keep=timedelta(days=30))
    messages = dataclasses.replace(MESSAGES, sagas=sagas)
    document = asyncapi.document(dataclasses.replace(shop, messages=messages))
    assert document["x-sagas"] == {"settle": 2}
    parsed = parse(document)
    assert parsed.returncode == 0, parsed.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("npm")
@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["info", "version"], 1, '"version" property type must be string'),
        (["operations", "send.shop.sold.v1", "action"], "publish", "operations.send.shop.sold.v1.action"),
        (
            ["channels", "shop.sold.v1", "messages"],
            {},
            "'#/channels/shop.sold.v1/messages/shop.sold.v1' does not exist",
        ),
        (["components", "schemas", "SoldV1", "properties", "number", "type"], "int", "payload.properties.number.type"),
        (["components", "schemas", "SoldV1", "discriminator"], {"propertyName": "note"}, "payload.discriminator"),
    ],
)
def test_the_official_parser_would_refuse_a_wrong_document(
    document: dict[str, Any], parse: Parse, path: list[str], value: Any, complaint: str
) -> None:
    part = document
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value

    parsed = parse(document)

    assert parsed.returncode == 1
    assert complaint in parsed.stderr


def test_the_schemas_are_json_schema_and_accept_the_messages_of_the_service() -> None:
    (sold,) = (one for one in described(MESSAGES) if one.name == "shop.sold.v1")
    schema = sold.schema()
    Draft202012Validator.check_schema(schema)
    body = SoldV1.model_validate(
        {
            "sale_id": "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d",
            "number": 1,
            "currency": "EUR",
            "lines": [{"text": "lamp", "amount": "3", "parts": [{"text": "bulb", "amount": "1.5"}]}],
            "total": {"amount": 300, "currency": "EUR"},
            "payment": {"method": "card", "last_digits": "1234"},
            "rates": {"USD": "1.08"},
            "occurred_at": "2027-01-31T12:00:00Z",
        }
    ).model_dump_json()
    validator = Draft202012Validator(schema)
    assert [*validator.iter_errors(json.loads(body))] == []
    assert [*validator.iter_errors(json.loads(body) | {"currency": "XXX"})] != []


# --- the files -----------------------------------------------------------------------------------------------------


def test_the_files_are_the_documents_and_a_schema_for_each_message_of_ours(shop: Service, folder: Path) -> None:
    assert main(shop, ["specs"]) == 0

    assert files(folder) == {
        "openapi.json",
        "asyncapi.json",
        "messages/shop.sold.v1.json",
        "messages/shop.remind.v1.json",
    }
    schema = json.loads((folder / "messages/shop.sold.v1.json").read_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (schema["$id"], schema["title"], schema["x-kind"]) == ("urn:message:shop.sold.v1", "SoldV1", "event")
    assert schema["properties"].keys() == SoldV1.model_fields.keys()
    assert main(shop, ["specs", "--check"]) == 0


def test_the_files_are_the_same_bytes_every_time(shop: Service, folder: Path) -> None:
    main(shop, ["specs"])
    first = {name: (folder / name).read_bytes() for name in files(folder)}
    main(shop, ["specs"])
    assert {name: (folder / name).read_bytes() for name in files(folder)} == first


@pytest.mark.parametrize("name", ["asyncapi.json", "messages/shop.sold.v1.json"])
@pytest.mark.parametrize("content", [None, "{}\n"])
def test_a_stale_file_fails_the_check_and_is_named(
    shop: Service, folder: Path, name: str, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    main(shop, ["specs"])
    (folder / name).unlink() if content is None else (folder / name).write_text(content)

    assert main(shop, ["specs", "--check"]) == 1

    said = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in said] == [f"specs/{name}"]
    assert "make specs" in said[0]


def test_a_document_without_code_fails_the_check_and_is_removed_by_writing(
    shop: Service, service: Service, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(shop, ["specs"])
    (folder / "retired.txt").write_text("shop.old.v1 nobody listens\n")
    silent = dataclasses.replace(service, name="shop")

    assert main(silent, ["specs", "--check"]) == 1

    said = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert said == ["specs/asyncapi.json", "specs/messages/shop.remind.v1.json", "specs/messages/shop.sold.v1.json"]
    assert main(silent, ["specs"]) == 0
    assert files(folder) == {"openapi.json", "retired.txt"}
    assert main(silent, ["specs", "--check"]) == 0


def test_the_document_names_the_owner_the_broker_and_the_purpose_of_each_operation(shop: Service) -> None:
    document = asyncapi.document(dataclasses.replace(shop, owner="@acme/shop", broker="rabbitmq"))

    assert document["info"]["contact"] == {"name": "@acme/shop"}
    assert document["servers"]["broker"]["protocol"] == "amqp"
    assert document["servers"]["broker"]["variables"]["host"]["default"] == "localhost:5672"
    operations = document["operations"]
    assert operations["send.shop.sold.v1"]["description"] == "A customer bought something."
    assert operations["send.shop.remind.v1"]["description"] == "shop asks for RemindV1."
    assert "servers" not in asyncapi.document(shop)
