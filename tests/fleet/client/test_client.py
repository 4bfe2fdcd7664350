"""`fleet client` writes typed functions for operations of another service, and loses nothing that the team has written."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import httpx2
import pytest
from chassis.dev import specs
from chassis.neighbours import Fallback, NeighbourUnavailable

from fleet.client import code, uses
from fleet.client.functions import error_class
from tests.chassis.calling import Neighbour, calling
from tests.fleet import command_line
from tests.support.commands import git

Node = dict[str, Any]
Fleet = Callable[..., str]

CUSTOMER = UUID("0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d")
USES, MODULE = Path("specs/uses/customers.json"), Path("src/billing/neighbours/customers.py")
PROBLEM = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def answer(schema: str) -> Node:
    return {"description": "", "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def document(**operations: Node) -> Node:
    """A neighbour with two operations, and others by their ids."""
    identity = {"name": "customer_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    level = {"name": "level", "in": "query", "schema": {"enum": ["gold", "bronze"], "type": "string"}}
    missing = {"404": {"$ref": "#/components/responses/Missing"}}
    get = {"operationId": "get_customer", "responses": {"200": answer("Customer"), **missing}, "tags": ["customers"]}
    listed: Node = {"operationId": "listCustomers", "parameters": [level], "responses": {"200": answer("Page")}}
    paths: Node = {
        "/v1/customers": {"get": listed},
        "/v1/customers/{customer_id}": {"parameters": [identity], "get": get},
    }
    for name, operation in operations.items():
        paths[f"/v1/{name}"] = {"post": {"operationId": name, "responses": {"204": {"description": ""}}, **operation}}
    text = {"type": "string", "maxLength": 40, "pattern": "^(?!x)"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "customers", "version": "1.2.3"},
        "paths": paths,
        "components": {
            "schemas": {
                "Customer": {
                    "type": "object",
                    "required": ["id", "name", "address"],
                    "properties": {
                        "id": {"type": "string", "format": "uuid"},
                        "name": text,
                        "address": {"$ref": "#/components/schemas/Address"},
                    },
                },
                "Address": {"type": "object", "properties": {"city": text}},
                "Page": {
                    "type": "object",
                    "required": ["items"],
                    "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Customer"}}},
                },
                "Problem": {"type": "object", "properties": {"code": text}},
                "Unused": {"type": "object"},
            },
            "responses": {"Missing": {"description": "Not Found", **PROBLEM}},
        },
    }


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a service that calls, in which the commands run."""
    folder = tmp_path / "billing"
    (folder / "src/billing").mkdir(parents=True)
    (folder / ".copier-answers.yml").write_text("_src_path: gh:acme/slipway\nservice_name: billing\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def neighbour(service: Path) -> Path:
    """The neighbour's document, in its folder."""
    return offer(service.parent / "customers/specs/openapi.json", document())


def offer(file: Path, content: Node) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def fleet(*arguments: str, status: int = 0) -> str:
    """Run `fleet client`, and return its output."""
    return command_line.run("client", *arguments, status=status)


def load(file: Path = MODULE) -> ModuleType:
    module = ModuleType("customers")
    exec(compile(file.read_text(), str(file), "exec"), vars(module))
    return module


def serve(respond: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url="http://customers", transport=httpx2.MockTransport(respond))


def used() -> Node:
    return json.loads(USES.read_text())


def change(file: Path, edit: Callable[[Node], object]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


async def test_a_function_sends_its_arguments_and_returns_a_model(neighbour: Path) -> None:
    fleet("customers", "get_customer", "list_customers", "--from", str(neighbour))
    customers = load()
    asked: list[httpx2.URL] = []
    shown = {"id": str(CUSTOMER), "name": "x" * 99, "address": {}, "since": 2027}

    def respond(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url)
        return httpx2.Response(200, json={"items": [shown]} if request.url.path.endswith("s") else shown)

    async with serve(respond) as client:
        customer = await customers.get_customer(client, CUSTOMER)
        page = await customers.list_customers(client, level="gold")
        await customers.list_customers(client)
    assert (customer.id, customer.address.city) == (CUSTOMER, None)
    assert page.items == [customer]
    assert [url.raw_path.decode() for url in asked] == [
        f"/v1/customers/{CUSTOMER}",
        "/v1/customers?level=gold",
        "/v1/customers",
    ]


async def test_a_failure_is_an_error_of_its_status(neighbour: Path) -> None:
    fleet("customers", "get_customer", "--from", str(neighbour))
    customers = load()
    for status, expected in ((404, customers.CustomersNotFound), (500, customers.CustomersError)):
        failure = httpx2.Response(status, json={"code": "customer_not_found"})
        async with serve(lambda _, failure=failure: failure) as client:
            with pytest.raises(customers.CustomersError) as raised:
                await customers.get_customer(client, CUSTOMER)
        assert type(raised.value) is expected
        assert (raised.value.status, raised.value.code) == (status, "customer_not_found")


async def test_a_body_is_sent_with_the_fields_that_are_set(service: Path) -> None:
    schema = {"type": "object", "properties": {"firstName": {"type": "string"}, "note": {"type": ["string", "null"]}}}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    token = {"name": "Idempotency-Key", "in": "header", "required": True, "schema": {"type": "string"}}
    file = offer(service / "openapi.json", document(create_customer={"requestBody": body, "parameters": [token]}))
    fleet("customers", "create_customer", "--from", str(file))
    customers = load()
    taken: list[httpx2.Request] = []
    async with serve(lambda request: taken.append(request) or httpx2.Response(204)) as client:
        new = customers.CreateCustomerBody(first_name="Ada")
        assert await customers.create_customer(client, new, idempotency_key="7") is None
    assert json.loads(taken[0].content) == {"firstName": "Ada"}
    assert taken[0].headers["Idempotency-Key"] == "7"


def test_the_models_shrink_with_the_fields_that_the_team_deletes(neighbour: Path) -> None:
    fleet("customers", "get_customer", "--from", str(neighbour))
    assert json.loads(USES.read_text())["components"]["schemas"].keys() == {"Address", "Customer", "Problem"}
    change(USES, lambda content: content["components"]["schemas"]["Customer"]["properties"].pop("address"))
    change(USES, lambda content: content["components"]["schemas"]["Customer"]["required"].remove("address"))
    fleet("customers")
    assert json.loads(USES.read_text())["components"]["schemas"].keys() == {"Customer", "Problem"}
    assert load().Customer.model_fields.keys() == {"id", "name"}
    # If an operation is added, the smaller model stays, and the output shows the difference.
    for operations in ((), ("list_customers",)):
        shown = fleet("customers", *operations, "--from", str(neighbour))
        assert '"address": {' in shown
        assert "was kept: use --force" in shown
    assert load().Customer.model_fields.keys() == {"id", "name"}
    fleet("customers", "--force", "--from", str(neighbour))
    assert load().Customer.model_fields.keys() == {"id", "name", "address"}


def test_the_way_to_authenticate_is_part_of_the_uses(neighbour: Path) -> None:
    def secure(content: Node) -> None:
        content["security"] = [{"tokens": ["customers:read"]}]
        content["components"]["securitySchemes"] = {
            "tokens": {"type": "oauth2", "flows": {}},
            "unused": {"type": "http"},
        }

    change(neighbour, secure)
    fleet("customers", "get_customer", "--from", str(neighbour))
    written = json.loads(USES.read_text())
    assert written["paths"]["/v1/customers/{customer_id}"]["get"]["security"] == [{"tokens": ["customers:read"]}]
    assert written["components"]["securitySchemes"].keys() == {"tokens"}


def test_an_operation_that_the_neighbour_no_longer_has_is_reported(neighbour: Path) -> None:
    fleet("customers", "get_customer", "--from", str(neighbour))
    change(neighbour, lambda content: content["paths"].pop("/v1/customers/{customer_id}"))
    shown = fleet("customers", "list_customers", "--from", str(neighbour))
    assert "customers has no operation get_customer any more: remove it from customers.json" in shown
    assert hasattr(load(), "get_customer")


def test_code_that_the_team_has_changed_is_replaced_only_by_force(neighbour: Path) -> None:
    fleet("customers", "get_customer", "--from", str(neighbour))
    ours = MODULE.read_text().replace('"""Status 404."""', '"""Nobody by that id."""')
    MODULE.write_text(ours)
    refused = fleet("customers", "list_customers", "--from", str(neighbour), status=1)
    assert '-    """Nobody by that id."""' in refused
    assert f"{MODULE} has changes of the team, so nothing was written: use --force" in refused
    assert MODULE.read_text() == ours
    assert "listCustomers" not in USES.read_text()
    fleet("customers", "list_customers", "--from", str(neighbour), "--force")
    assert "Nobody" not in MODULE.read_text()
    assert {"get_customer", "list_customers"} <= vars(load()).keys()


@pytest.mark.parametrize("changed", ["uses", "code", "neither"])
def test_the_check_fails_where_code_and_uses_differ(neighbour: Path, changed: str) -> None:
    fleet("customers", "get_customer", "--from", str(neighbour))
    if changed == "uses":
        change(USES, lambda content: content["components"]["schemas"]["Customer"]["properties"].pop("name"))
    elif changed == "code":
        MODULE.write_text(MODULE.read_text().replace("name: str", "name: int"))
    else:  # as a formatter with shorter lines writes the code
        code = MODULE.read_text().replace(
            "(client: httpx2.AsyncClient, customer_id", "(\n    client: httpx2.AsyncClient,\n customer_id"
        )
        assert code != MODULE.read_text()
        MODULE.write_text(code)
    assert bool(fleet("--check", status=int(changed != "neither"))) is (changed != "neither")
    assert fleet("customers", "--check", status=int(changed != "neither")) or changed == "neither"
    # The gate specs-check of a service compares digests, without fleet.
    assert [*specs.unlike_uses(Path("src/billing"))] == (
        []
        if changed == "neither"
        else [f"{MODULE} does not have the code of {USES}: run `fleet client customers`, and commit both files."]
    )


def test_a_module_that_imports_httpx_stays_valid(neighbour: Path) -> None:
    fleet("customers", "get_customer", "--from", str(neighbour))
    text = MODULE.read_text()
    head, _, body = text.replace("httpx2", "httpx").partition(code.MARK)
    digests, _, body = body.partition("\n")
    before = f"{head}{code.MARK}{digests[:16]} {code.digest(body)}\n{body}"
    MODULE.write_text(before)
    assert code.is_untouched(before)
    fleet("--check")
    fleet("customers")
    assert MODULE.read_text() == text


@pytest.fixture
def with_policy(service: Path) -> None:
    """The service has the part `neighbours` of the chassis."""
    with (service / ".copier-answers.yml").open("a") as answers:
        answers.write("chassis_parts: [neighbours]\n")


def test_a_module_without_a_policy_stays_valid_when_the_part_is_turned_on(
    neighbour: Path, request: pytest.FixtureRequest
) -> None:
    fleet("customers", "get_customer", "--from", str(neighbour))
    request.getfixturevalue("with_policy")
    fleet("--check")
    fleet("customers")
    assert "_neighbours.call(" in MODULE.read_text()
    fleet("--check")


@pytest.mark.usefixtures("with_policy")
async def test_a_function_with_a_policy_returns_its_fallback_without_an_answer(neighbour: Path) -> None:
    fleet("customers", "get_customer", "--from", str(neighbour))
    customers = load()
    unknown = Fallback("unknown")
    shown = {"id": str(CUSTOMER), "name": "Ada", "address": {}}
    answers: list[Any] = [503, 503, 503, httpx2.Response(200, json=shown), 404, 503]
    async with calling(Neighbour(*answers), neighbour_retry_percent=100) as client:
        assert await customers.get_customer(client, CUSTOMER, fallback=unknown) is unknown
        assert (await customers.get_customer(client, CUSTOMER, fallback=unknown)).name == "Ada"
        with pytest.raises(customers.CustomersNotFound):
            await customers.get_customer(client, CUSTOMER, fallback=unknown)
        with pytest.raises(NeighbourUnavailable):
            await customers.get_customer(client, CUSTOMER)


@pytest.mark.usefixtures("with_policy")
async def test_a_function_sends_a_key_where_the_neighbour_takes_keys(service: Path) -> None:
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}
    offered = document(create_customer={"parameters": [key]}, notify={})
    fleet("customers", "create_customer", "notify", "--from", str(offer(service.parent / "openapi.json", offered)))
    customers, neighbour = load(), Neighbour(503, 204)
    async with calling(neighbour) as client:
        await customers.create_customer(client)
        await customers.create_customer(client, idempotency_key="the-key")
        await customers.notify(client)
    keys = [request.headers.get("Idempotency-Key") for request in neighbour.requests]
    assert keys[0] == keys[1] is not None  # repeated with the same key
    assert keys[2:] == ["the-key", None]


def test_a_module_without_the_line_of_fleet_is_the_teams_own(neighbour: Path) -> None:
    fleet("customers", "get_customer", "--from", str(neighbour))
    MODULE.write_text('"""Written by hand."""\n')
    assert [*specs.unlike_uses(Path("src/billing"))] == []
    MODULE.unlink()
    assert len([*specs.unlike_uses(Path("src/billing"))]) == 1
    assert "is missing: run `fleet client customers`" in fleet("--check", status=1)


async def test_a_document_of_openapi_3_0_is_read_and_committed_as_3_1(service: Path) -> None:
    content = document()
    old = {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "nullable": True, "example": 5}
    level = {"type": "string", "enum": ["gold"], "nullable": True}
    home = {"allOf": [{"$ref": "#/components/schemas/Address"}], "nullable": True}
    # OpenAPI 3.0 ignores `nullable` next to a reference
    named = {"$ref": "#/components/schemas/Address", "nullable": True}
    inner = {"type": "object", "nullable": True, "properties": {"nullable": {"type": "boolean"}}}
    fields = {"age": old, "level": level, "home": home, "named": named, "inner": inner}
    content["components"]["schemas"]["Customer"] |= {"properties": fields, "required": [*fields]}
    content["openapi"] = "3.0.3"
    fleet("customers", "get_customer", "--from", str(offer(service / "openapi.json", content)))
    assert used()["openapi"] == "3.1.0"
    shown: Node = dict.fromkeys(fields) | {"named": {}}
    customers = load()
    async with serve(lambda _: httpx2.Response(200, json=shown)) as client:
        customer = await customers.get_customer(client, CUSTOMER)
        assert (customer.age, customer.level, customer.home, customer.inner) == (None, None, None, None)
        shown |= {"age": 1, "level": "gold", "home": {"city": "Ulm"}, "inner": {"nullable": True}}
        customer = await customers.get_customer(client, CUSTOMER)
        assert (customer.home.city, customer.inner.nullable) == ("Ulm", True)
        shown["named"] = None
        with pytest.raises(ValueError, match="named"):
            await customers.get_customer(client, CUSTOMER)
    assert fleet("--check") == ""


INEXPRESSIBLE = {
    "a form": (
        {"requestBody": {"content": {"multipart/form-data": {}}}},
        "the request is multipart/form-data, and not JSON",
    ),
    "a cookie": (
        {"parameters": [{"name": "session", "in": "cookie", "schema": {"type": "string"}}]},
        "the parameter session is in a cookie",
    ),
    "an object in the query": (
        {"parameters": [{"name": "filter", "in": "query", "style": "deepObject", "schema": {"type": "object"}}]},
        "the parameter filter is not a plain value",
    ),
    "a schema with not": (
        {"responses": {"200": {"content": {"application/json": {"schema": {"not": {"type": "string"}}}}}}},
        "the operation has not, which a model cannot express",
    ),
    "another document": (
        {"responses": {"200": {"content": {"application/json": {"schema": {"$ref": "common.yaml#/Customer"}}}}}},
        "it refers to common.yaml#/Customer, which is outside of the document",
    ),
    "a missing schema": (
        {"responses": {"200": answer("Nobody")}},
        "it refers to #/components/schemas/Nobody, which does not exist",
    ),
    "a schema that is a number": (
        {"requestBody": {"content": {"application/json": {"schema": 5}}}},
        "it is malformed: ",
    ),
    "an unnamed status": (
        {"responses": {"": {"content": 5}, "200": {"content": {"application/json": []}}}},
        "it is malformed: ",
    ),
    "a file": (
        {"responses": {"200": {"content": {"text/csv": {}}}}},
        "the answer 200 is text/csv, and not JSON",
    ),
}


@pytest.mark.parametrize("case", INEXPRESSIBLE)
def test_an_operation_that_cannot_be_expressed_is_refused_by_name_and_others_are_written(
    service: Path, case: str
) -> None:
    operation, reason = INEXPRESSIBLE[case]
    file = offer(service / "openapi.json", document(odd=operation))
    shown = fleet("customers", "get_customer", "odd", "--from", str(file), status=1)
    assert f"odd was refused: {reason}" in shown
    assert "get_customer" in vars(load())
    assert "odd" not in vars(load())
    assert "/v1/odd" not in USES.read_text()


def test_nothing_is_written_if_every_operation_is_refused(service: Path) -> None:
    file = offer(service / "openapi.json", document(odd=INEXPRESSIBLE["a cookie"][0]))
    assert "no operation of customers can be called, so nothing was written\nodd: " in fleet(
        "customers", "odd", "--from", str(file), status=1
    )
    assert not USES.exists()


def bad_source(content: str) -> list[str]:
    file = Path(f"{len(content)}-openapi.json")
    file.write_text(content)
    return ["customers", "get_customer", "--from", str(file)]


def test_bad_input_is_refused_in_one_sentence(service: Path, neighbour: Path) -> None:
    folder = service / "empty"
    folder.mkdir()
    for arguments, sentence in (
        (
            ["customers", "get_custommer", "--from", str(neighbour)],
            "there is no operation get_custommer; the nearest are get_customer",
        ),
        (
            ["customers", "--from", str(neighbour)],
            "name the operations of customers that this service calls; there are get_customer",
        ),
        (
            ["customers", "get_customer", "--from", str(folder)],
            "has no specs/openapi.json: run `make specs` in the neighbour",
        ),
        (
            ["customers", "get_customer", "--from", "nowhere"],
            "is neither a file, a folder nor a git address: correct --from",
        ),
        (["customers", "get_customer"], "fleet.toml does not exist"),
        (["Customers!", "get_customer"], "'Customers!' is not the name of a service: write it in kebab-case"),
        ([], "name the service to call"),
        (bad_source("{"), "openapi.json cannot be parsed: "),
        (bad_source("a: [b"), "openapi.json cannot be parsed: "),
        (bad_source("[]"), "openapi.json: the file is not an OpenAPI document: "),
        (
            bad_source('{"openapi": "2.0", "paths": {}}'),
            "openapi.json is of OpenAPI 2.0: convert it to OpenAPI 3",
        ),
    ):
        said = fleet(*arguments, status=1)
        assert sentence in said, (arguments, said)
        assert "\n" not in said.strip()
    (service / ".copier-answers.yml").unlink()
    assert "is not the root of a service: run `fleet client`" in fleet("customers", "get_customer", status=1)


def test_the_document_comes_from_a_folder_a_git_address_or_the_list_of_services(service: Path, neighbour: Path) -> None:
    folder = neighbour.parents[1]
    fleet("customers", "get_customer", "--from", "../customers")
    written = USES.read_text()
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "Begin")
    (service / "fleet.toml").write_text(f'[[service]]\nurl = "file://{folder}"\n')
    for source in (["--from", f"file://{folder}"], []):
        USES.unlink()
        fleet("customers", "get_customer", *source)
        assert USES.read_text() == written
    assert "lists no service customer; the nearest are customers" in fleet("customer", "get_customer", status=1)


def test_a_hostile_document_becomes_no_code(service: Path) -> None:
    bait = 'x"""\n    import os\n    os.system(\'touch owned\')\n\\'
    content = document()
    operation = content["paths"]["/v1/customers"]["get"]
    operation |= {"description": bait, "operationId": f"list {bait}", "summary": bait}
    operation["parameters"] += [
        {"name": bait, "in": "query", "schema": {"enum": [bait], "type": "string"}},
        {"name": "client", "in": "query", "schema": {"type": "string"}},
        {"name": "level", "in": "header", "schema": {"type": "boolean"}},
    ]
    content["components"]["schemas"]["Page"] |= {"title": bait, "description": bait}
    content["components"]["schemas"]["Page"]["properties"][bait] = {"type": "string", "default": bait, "enum": [bait]}
    content["paths"]['/v1/"+__import__("os").name+"'] = {"get": {"operationId": "odd", "responses": {"204": {}}}}
    file = offer(service / "openapi.json", content)
    name = uses.snake(operation["operationId"])
    assert "odd was refused: the path has characters that a URL cannot have" in fleet(
        "customers", name, "odd", "--from", str(file), status=1
    )
    imported = {
        alias.name
        for node in ast.walk(ast.parse(MODULE.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert "os" not in imported
    assert callable(vars(load())[name])
    assert not (service / "owned").exists()


def test_the_code_is_the_same_on_each_version_of_python() -> None:
    """The names of statuses and the digest do not come from the standard library of the moment."""
    assert [error_class("Its", status) for status in (413, 414, 416, 422, 418, 599)] == [
        "ItsContentTooLarge",
        "ItsUriTooLong",
        "ItsRangeNotSatisfiable",
        "ItsUnprocessableContent",
        "ItsImATeapot",
        "ItsStatus599",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["[]", "[neighbours]"])
def test_the_code_passes_the_gates_of_a_service(neighbour: Path, service: Path, parts: str) -> None:
    with (service / ".copier-answers.yml").open("a") as answers:
        answers.write(f"chassis_parts: {parts}\n")
    root = Path(__file__).parents[3]
    (service / "ruff.toml").write_text((root / "template/ruff.toml").read_text())
    fleet("customers", "get_customer", "list_customers", "--from", str(neighbour))
    command_line.check_code(service)
