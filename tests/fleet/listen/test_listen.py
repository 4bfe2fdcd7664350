"""`fleet listen` writes a listener that passes every gate, and loses nothing that the team has written."""

import ast
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from fleet.main import app
from fleet.map.unmet_expectations import find_unmet
from tests.fleet import command_line
from tests.support.commands import git
from tests.support.paths import ROOT

Node = dict[str, Any]

PLACED, PRINT = "orders.order-placed.v1", "billing.print-invoice.v1"
MODULE, USECASE = Path("src/billing/messaging/order_placed.py"), Path("src/billing/usecases/order_placed.py")
GOLDEN, TEST = Path("tests/messaging/golden/order_placed_v1.json"), Path("tests/messaging/test_order_placed.py")
IDENTIFIER, INSTANT = {"type": "string", "format": "uuid"}, {"type": "string", "format": "date-time"}
TEXT: Node = {"type": "string", "maxLength": 40, "pattern": "^[^\\x00]*$"}
LINE = {"type": "object", "properties": {"sku": TEXT, "price": {"type": "number"}}, "required": ["sku", "price"]}


def order(**fields: Node) -> Node:
    """The body of an event, with further fields."""
    known: Node = {
        "order_id": IDENTIFIER,
        "total": {"$ref": "#/components/schemas/Money"},
        "level": {"enum": ["gold", "bronze"], "type": "string"},
        "note": {"anyOf": [TEXT, {"type": "null"}]},
        "lines": {"type": "array", "items": {"$ref": "#/components/schemas/OrderLine"}},
        "occurred_at": INSTANT,
        **fields,
    }
    return {"type": "object", "properties": known, "required": [name for name in known if name != "note"]}


def money() -> Node:
    amount = {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1}
    properties = {"amount": amount, "currency": {"type": "string", "pattern": "^[A-Z]{3}$"}}
    required = ["amount", "currency"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def document(schemas: Node | None = None, **bodies: Node) -> Node:
    """The AsyncAPI document of a sender, with its messages by their names."""
    bodies = bodies or {PLACED: order()}
    messages, channels, operations = {}, {}, {}
    for name, payload in bodies.items():
        kind = "job" if name.startswith("billing") else "event"
        messages[name] = {"name": name, "tags": [{"name": kind}], "payload": payload}
        channels[name] = {"address": name, "messages": {name: {"$ref": f"#/components/messages/{name}"}}}
        reference = {"$ref": f"#/channels/{name}/messages/{name}"}
        channel = {"$ref": f"#/channels/{name}"}
        operations[f"send.{name}"] = {"action": "send", "channel": channel, "messages": [reference]}
    components = {"messages": messages, "schemas": {"Money": money(), "OrderLine": LINE, **(schemas or {})}}
    return {"asyncapi": "3.1.0", "channels": channels, "operations": operations, "components": components}


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a service that listens, in which the commands run."""
    folder = tmp_path / "billing"
    (folder / "src/billing/messaging").mkdir(parents=True)
    answers = "_src_path: gh:acme/slipway\nservice_name: billing\nmessaging_style: events-and-queues\n"
    (folder / ".copier-answers.yml").write_text(answers)
    (folder / "ruff.toml").write_text((ROOT / "template/ruff.toml").read_text())
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def sender(service: Path) -> Path:
    """The folder of the service that sends."""
    folder = service.parent / "orders"
    offer(folder, document())
    return folder


def offer(folder: Path, content: Node) -> Path:
    file = folder / "specs/asyncapi.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def listen(*arguments: str, status: int = 0) -> str:
    """Run `fleet listen`, and return its output."""
    return command_line.run("listen", *arguments, status=status)


def load(path: Path = MODULE) -> ModuleType:
    """Load the contracts of a module, without the handler, which imports the service."""
    module = ModuleType("billing")
    code = path.read_text().replace("from billing.", "from json ")
    lines = [line for line in code.split("\n") if not line.startswith("from json")]
    exec("\n".join(lines).partition("\nasync def ")[0], vars(module))
    return module


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_contract_reads_the_agreed_body_of_the_sender(sender: Path) -> None:
    agreed = {
        "order_id": "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4e",
        "total": {"amount": 7, "currency": "EUR"},
        "level": "bronze",
        "note": None,
        "lines": [{"sku": "a", "price": 2, "secret": "is not read"}],
        "occurred_at": "2027-02-28T12:00:00Z",
        "unknown": 1,
    }
    (sender / GOLDEN).parent.mkdir(parents=True)
    (sender / GOLDEN).write_text(json.dumps(agreed))
    listen(PLACED, "--from", str(sender))
    contract = load().OrderPlacedV1
    body = json.loads(GOLDEN.read_text())
    assert body.keys() == agreed.keys() - {"unknown"}
    assert body["lines"] == [{"sku": "a", "price": 2}]
    assert (body["order_id"], body["note"]) == (agreed["order_id"], None)
    assert contract.model_validate(agreed).model_dump(mode="json") == body
    with pytest.raises(ValidationError):
        contract.model_validate(agreed | {"level": "silver"})


def test_a_sender_without_an_agreed_body_gets_a_sample_that_the_contract_reads_and_writes(service: Path) -> None:
    odd: Node = {
        "firstName": TEXT,
        "class": {"type": "boolean"},
        "json": {"type": ["integer", "null"]},
        "day": {"type": "string", "format": "date"},
        "by_name": {"type": "object", "additionalProperties": {"type": "integer"}},
        "anything": {},
        "kind": {"const": "order"},
        "either": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        "inner": {"type": "object", "properties": {"camelCase": TEXT}},
        "contrary": {"type": "string", "properties": {"a": TEXT}},
        "wrapped": {"allOf": [{"$ref": "#/components/schemas/OrderLine"}]},
    }
    listen(PLACED, "--from", str(offer(service / "sender", document(**{PLACED: order(**odd)}))))
    body = json.loads(GOLDEN.read_text())
    assert body.keys() == order(**odd)["properties"].keys()
    read = load().OrderPlacedV1.model_validate_json(json.dumps(body))
    assert read.model_dump(mode="json") == body
    assert (read.first_name, read.class_, read.json_) == ("text", True, 42)


def test_the_contract_expects_no_more_than_the_sender_promises(sender: Path) -> None:
    price = {"type": "object", "properties": {"amount": {"type": "integer"}, "currency": {"type": "string"}}}
    fields = {
        "number": {"type": "integer"},
        "name": {"type": "string"},
        "price": {**price, "additionalProperties": False},
    }
    offer(sender, document(**{PLACED: order(**fields)}))
    listen(PLACED, "--from", str(sender))
    sent = {**order(**fields), "components": {"schemas": {"Money": money(), "OrderLine": LINE}}}
    assert find_unmet(load().OrderPlacedV1.model_json_schema(), sent) == []


def test_only_the_wanted_fields_are_in_the_contract_the_command_and_the_agreed_body(sender: Path) -> None:
    listen(PLACED, "--fields", "order_id, lines", "--from", str(sender))
    assert load().OrderPlacedV1.model_fields.keys() == {"order_id", "lines"}
    assert json.loads(GOLDEN.read_text()).keys() == {"order_id", "lines"}
    assert "class ReactToOrderPlaced:\n    order_id: UUID\n\n" in USECASE.read_text()
    assert "Money" not in USECASE.read_text()


def test_a_job_of_another_sender_has_a_use_case_of_its_own_name(sender: Path) -> None:
    print_ = {"type": "object", "properties": {"invoice_id": IDENTIFIER}, "required": ["invoice_id"]}
    reports = "billing--reports.print-invoice.v2"
    offer(sender, document(**{PRINT: print_, reports: print_}))
    listen(PRINT, "--from", str(sender))
    text = Path("src/billing/messaging/print_invoice.py").read_text()
    assert "OnJob(PrintInvoiceV1, on_print_invoice),\n" in text
    assert "await print_invoice(command, uow)\n" in text
    listen(reports, "--from", str(sender))
    text = Path("src/billing/messaging/print_invoice_v2.py").read_text()
    assert 'OnJob(PrintInvoiceV2, on_print_invoice_v2, queue="reports"),\n' in text


def test_another_run_keeps_the_files_of_the_team_and_replaces_the_contract_only_by_force(sender: Path) -> None:
    listen(PLACED, "--fields", "order_id", "--from", str(sender))
    change(MODULE, "    command =", "    # Of the team.\n    command =")
    change(
        MODULE, "\nclass OrderPlacedV1", '\nclass Ours(Contract):\n    mark: str = "\u2028"\n\n\nclass OrderPlacedV1'
    )
    USECASE.unlink()  # the handler calls another use case now
    TEST.write_text("# Of the team.\n")
    GOLDEN.write_text(GOLDEN.read_text().replace("\n  ", "\n      "))
    assert "has the contract of orders.order-placed.v1 already" in listen(PLACED, "--from", str(sender))
    before = MODULE.read_text(), GOLDEN.read_text()
    refused = listen(PLACED, "--fields", "order_id,total", "--from", str(sender), status=1)
    assert "+    total: fields.MoneyField" in refused
    assert "differ, so nothing was written: use --force" in refused
    assert (MODULE.read_text(), GOLDEN.read_text()) == before
    shown = listen(PLACED, "--fields", "order_id,total", "--from", str(sender), "--force")
    assert "+    total: fields.MoneyField" in shown
    assert load().OrderPlacedV1.model_fields.keys() == {"order_id", "total"}
    assert load().Ours().mark == "\u2028"
    assert "# Of the team." in MODULE.read_text()
    assert TEST.read_text() == "# Of the team.\n"
    assert not USECASE.exists()


def test_a_change_of_the_sender_is_shown_for_the_fields_that_are_read(sender: Path) -> None:
    listen(PLACED, "--fields", "order_id,level", "--from", str(sender))
    offer(sender, document(**{PLACED: order(level={"type": "integer"}, since=INSTANT)}))
    refused = listen(PLACED, "--from", str(sender), status=1)
    assert "-    level: Literal" in refused
    assert "+    level: int" in refused
    assert "since" not in refused
    gone = order()
    del gone["properties"]["level"]
    offer(sender, document(**{PLACED: gone}))
    assert "orders.order-placed.v1 has no field level" in listen(PLACED, "--from", str(sender), status=1)


@pytest.mark.parametrize("file", [MODULE, USECASE, TEST, GOLDEN])
def test_a_file_of_the_team_with_the_name_of_a_new_one_is_not_overwritten(sender: Path, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"# caf\xe9\n")
    refused = listen(PLACED, "--from", str(sender), status=1)
    assert f"--- {file}" in refused
    assert file.read_bytes() == b"# caf\xe9\n"
    assert [path for path in (MODULE, USECASE, TEST, GOLDEN) if path.exists()] == [file]


def test_nothing_is_half_written_if_a_file_cannot_be_written(sender: Path, service: Path) -> None:
    Path("tests").write_text("not a folder\n")
    with pytest.raises(OSError, match="tests"):
        app(["listen", PLACED, "--from", str(sender)], standalone_mode=False)
    assert not [path for path in service.rglob("*placed*") if path.is_file()]


def test_a_second_line_for_a_message_is_refused(sender: Path) -> None:
    Path("src/billing/messaging/orders.py").write_text(f"INCOMING = [OnEvent('{PLACED}', OrderPlacedV1, on_placed)]\n")
    refused = listen(PLACED, "--from", str(sender), status=1)
    assert (
        refused == "src/billing/messaging/orders.py names orders.order-placed.v1 already: change its contract by hand"
    )
    assert not MODULE.exists()


def nested(**keywords: Any) -> Node:
    return document(**{PLACED: order(odd=keywords)})


REFUSED: dict[str, tuple[Node, str]] = {
    "a keyword": (nested(**{"not": {"type": "null"}}), "the message has not, which a model cannot express"),
    "a circle": (
        document({"OrderLine": {"type": "object", "properties": {"more": {"$ref": "#/components/schemas/OrderLine"}}}}),
        "OrderLine refers to itself",
    ),
    "another document": (
        nested(**{"$ref": "common.json#/Odd"}),
        "it refers to common.json#/Odd, which is outside of the document",
    ),
    "a missing schema": (nested(**{"$ref": "#/components/schemas/Odd"}), "Odd, which does not exist"),
    "the name of the command": (
        document(
            {"ReactToOrderPlaced": LINE}, **{PLACED: order(odd={"$ref": "#/components/schemas/ReactToOrderPlaced"})}
        ),
        "the class ReactToOrderPlaced would have the name of another one",
    ),
    "a keyword of Python": (
        document({"none": LINE}, **{PLACED: order(odd={"$ref": "#/components/schemas/none"})}),
        "the class None would have the name of another one",
    ),
    "a list": (document(**{PLACED: {"type": "array"}}), "its body is no object with named fields"),
    "two parts": (nested(allOf=[LINE, {"type": "object", "properties": {}}]), "joins several schemas by allOf"),
    "two fields": (
        document(**{PLACED: order(**{"a-b": TEXT, "a_b": TEXT})}),
        "two fields of OrderPlacedV1 would be called a_b",
    ),
    "two classes": (
        document(
            {"order-line": {"type": "object", "properties": {"a": TEXT}}},
            **{PLACED: order(odd={"$ref": "#/components/schemas/order-line"})},
        ),
        "the class OrderLine would have the name of another one",
    ),
    "a class of the chassis": (
        document({"Contract": LINE}, **{PLACED: order(odd={"$ref": "#/components/schemas/Contract"})}),
        "the class Contract would have the name of another one",
    ),
    "an unknown type": (nested(type="decimal"), "is of the type 'decimal', which JSON does not have"),
    "a number among the values": (nested(enum=[1.5]), "has values that are neither text nor integers: [1.5]"),
    "a schema of Avro": (
        document(**{PLACED: {"schemaFormat": "application/vnd.apache.avro;version=1.9.0", "schema": {}}}),
        "its schema has the format application/vnd.apache.avro;version=1.9.0, and not JSON Schema",
    ),
    "nonsense": (document(**{PLACED: {"properties": {"a": 5}, "required": 7}}), "it is malformed: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_message_that_no_contract_expresses_is_refused_by_name(service: Path, case: str) -> None:
    content, reason = REFUSED[case]
    refused = listen(PLACED, "--from", str(offer(service / "sender", content)), status=1)
    assert refused.startswith("orders.order-placed.v1 was refused, and nothing was written: ")
    assert reason in refused
    assert not MODULE.exists()
    if case == "a keyword":
        listen(PLACED, "--fields", "order_id", "--from", "sender")


def test_bad_input_is_refused_in_one_sentence(service: Path, sender: Path) -> None:
    file = service / "file.json"
    print_ = {"type": "object", "properties": {"a": TEXT}}
    offer(service / "jobs", document(**{"orders.pack.v1": print_}))
    change(service / "jobs/specs/asyncapi.json", '"event"', '"job"')
    change(offer(service / "receiver", document()), '"send"', '"receive"')
    (service / "empty").mkdir()
    for arguments, content, sentence in (
        (
            ["orders.order-plced.v1"],
            None,
            "../orders has no message orders.order-plced.v1; the nearest are orders.order-pl",
        ),
        (["order-placed"], None, "'order-placed' is not the name of a message: write <service>.<name>.v<N>"),
        (["../../x.y.v1"], None, "'../../x.y.v1' is not the name of a message"),
        ([PLACED, "--fields", "order_ids"], None, "has no field order_ids; the nearest are order_id"),
        ([PLACED, "--from", "empty"], None, "empty has no specs/asyncapi.json: run `make specs` in the neighbour"),
        ([PLACED, "--from", "nowhere"], None, "nowhere is neither a file, a folder nor a git address"),
        ([PLACED, "--config", "fleet.toml"], None, "fleet.toml does not exist"),
        ([PLACED, "--from", "receiver"], None, "the service does not send orders.order-placed.v1"),
        (["orders.pack.v1", "--from", "jobs"], None, "is a job that orders processes, and nobody listens to a job"),
        ([PLACED, "--from", "file.json"], "{", "file.json cannot be parsed: "),
        ([PLACED, "--from", "file.json"], "[]", "file.json is not an AsyncAPI document"),
        ([PLACED, "--from", "file.json"], '{"asyncapi": "2.6.0"}', "is of AsyncAPI 2.6.0: convert it to AsyncAPI 3"),
        ([PLACED, "--from", "file.json"], '{"asyncapi": "3.0.0", "operations": {"a": 5}}', "is malformed: "),
        ([PLACED, "--from", "file.json"], '{"asyncapi": "3.0.0"}', "file.json has no message"),
    ):
        file.write_text(content or "")
        source = [] if {"--from", "--config"} & {*arguments} else ["--from", "../orders"]
        refused = listen(*arguments, *source, status=1)
        assert sentence in refused, (arguments, refused)
        assert "\n" not in refused.strip()
    answers = service / ".copier-answers.yml"
    change(answers, "events-and-queues", "sync")
    assert "billing has no messages: turn them on by `fleet update" in listen(PLACED, "--from", "../orders", status=1)
    change(answers, "service_name: billing", "service_name: ../../owned")
    assert "service_name is '../../owned', and has to be a name" in listen(PLACED, "--from", "../orders", status=1)
    answers.unlink()
    assert "is not the root of a service: run `fleet listen`" in listen(PLACED, "--from", "../orders", status=1)


def test_the_document_comes_from_a_git_address_or_the_list_of_services(service: Path, sender: Path) -> None:
    git(sender, "init", "--quiet")
    git(sender, "add", "--all")
    git(sender, "commit", "--quiet", "--message", "Begin")
    (service / "fleet.toml").write_text(f'[[service]]\nurl = "file://{sender}"\n')
    listen(PLACED, "--from", f"file://{sender}")
    assert "has the contract of orders.order-placed.v1 already" in listen(PLACED)


def test_a_hostile_document_becomes_no_code(service: Path) -> None:
    bait = 'x"""\n    import os\n    os.system(\'touch owned\')\n\\'
    content = nested(enum=[bait], title=bait, description=bait, default=bait)
    message = content["components"]["messages"][PLACED]
    message |= {"title": bait, "summary": bait, "description": bait, "examples": [{"payload": {"odd": bait}}]}
    message["payload"]["properties"][bait] = {"type": "string"}
    content["components"]["schemas"][bait] = {"type": "object", "properties": {bait: {"type": "string"}}}
    message["payload"]["properties"]["inner"] = {"$ref": f"#/components/schemas/{bait}"}
    listen(PLACED, "--from", str(offer(service / "sender", content)))
    for file in (MODULE, USECASE, TEST):
        nodes = ast.walk(ast.parse(file.read_text()))
        imported = {
            alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
        }
        assert "os" not in imported
    contract = load().OrderPlacedV1
    body = json.loads(GOLDEN.read_text())
    assert body["odd"] == bait
    assert contract.model_validate(body).model_dump(mode="json") == body
    assert not (service / "owned").exists()


def test_a_document_that_doubles_with_each_reference_is_given_up(
    service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.3")
    doubled = {f"S{number}": {"anyOf": [{"$ref": f"#/components/schemas/S{number + 1}"}] * 2} for number in range(60)}
    content = document({**doubled, "S60": TEXT}, **{PLACED: order(odd={"$ref": "#/components/schemas/S0"})})
    refused = listen(PLACED, "--from", str(offer(service / "sender", content)), status=1)
    assert "takes more than 0.3 seconds" in refused
    assert not MODULE.exists()


@pytest.mark.slow
def test_the_code_passes_the_gates_of_a_service(service: Path, sender: Path) -> None:
    listen(PLACED, "--from", str(sender))
    command_line.check_code(service)
