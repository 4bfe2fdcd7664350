"""`neighbour("customers")` answers as specs/uses describes, and refuses whatever does not fit."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from chassis.client import service_client
from chassis.neighbours.testing import Neighbour, Slow, Unfit, neighbour
from pydantic import BaseModel

Node = dict[str, Any]

CUSTOMER = "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"
PATH = f"/v1/customers/{CUSTOMER}"
ADA = {"id": CUSTOMER, "name": "Ada", "level": "gold"}


def json_of(schema: str, media_type: str = "application/json") -> Node:
    return {"description": "", "content": {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def document() -> Node:
    identity = {"name": "customer_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    query = [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
        {"name": "level", "in": "query", "schema": {"type": "array", "items": {"enum": ["gold", "bronze"]}}},
    ]
    key = {"name": "Idempotency-Key", "in": "header", "required": True, "schema": {"type": "string", "minLength": 2}}
    problem = json_of("Problem", "application/problem+json")
    get = {
        "operationId": "getCustomer",
        "parameters": [identity],
        "responses": {"200": json_of("Customer"), "404": problem},
    }
    delete = {"operationId": "delete_customer", "parameters": [identity], "responses": {"204": {"description": ""}}}
    listed = {
        "operationId": "list_customers",
        "parameters": query,
        "responses": {"2XX": json_of("Page"), "200": json_of("Page")},
    }
    body = {"required": True, **json_of("NewCustomer")}
    create = {
        "operationId": "create_customer",
        "parameters": [key],
        "requestBody": body,
        "responses": {"201": json_of("Customer")},
    }
    text = {"type": "string", "minLength": 2}
    level = {"enum": ["gold", "bronze"]}
    fields = {"id": {"type": "string", "format": "uuid"}, "name": {"anyOf": [text, {"type": "null"}]}, "level": level}
    page = {"type": "object", "required": ["items"], "properties": {"items": {"type": "array"}}}
    code = {"type": "object", "properties": {"code": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "paths": {
            "/v1/customers": {"get": listed, "post": create},
            "/v1/customers/{customer_id}": {"get": get, "delete": delete},
        },
        "components": {
            "schemas": {
                "Customer": {"type": "object", "required": ["id", "name"], "properties": fields},
                "NewCustomer": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": text, "level": level},
                    "additionalProperties": False,
                },
                "Page": page,
                "Problem": code,
            }
        },
    }


@pytest.fixture(autouse=True)
def uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a service with the uses of its neighbour."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "specs/uses/customers.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(document()))
    return file


async def ask(transport: Neighbour, method: str = "GET", path: str = PATH, **options: Any) -> httpx2.Response:
    async with service_client("http://customers", transport=transport, timeout_seconds=0.2) as client:
        return await client.request(method, path, **options)


async def test_the_neighbour_gives_the_answer_of_the_operation_and_remembers_the_request() -> None:
    customers = neighbour("customers", get_customer=ADA)
    answer = await ask(customers)
    assert (answer.status_code, answer.json()) == (200, ADA)
    assert answer.headers["Content-Type"] == "application/json"
    assert [request.url.path for request in customers.requests] == [PATH]


async def test_a_neighbour_without_an_answer_makes_one_by_the_schema() -> None:
    assert (await ask(neighbour("customers"))).json() == {"id": CUSTOMER, "name": "xx", "level": "gold"}
    assert (await ask(neighbour("customers"), path="/v1/customers")).json() == {"items": []}
    assert (await ask(neighbour("customers"), "DELETE")).status_code == 204


async def test_a_status_is_one_argument_with_its_own_body() -> None:
    missing = await ask(neighbour("customers", get_customer=404))
    assert (missing.status_code, missing.headers["Content-Type"]) == (404, "application/problem+json")
    assert missing.json() == {"code": "x"}
    assert (await ask(neighbour("customers", 503))).status_code == 503
    later = neighbour("customers", httpx2.Response(429, headers={"Retry-After": "3"}))
    assert (await ask(later)).headers["Retry-After"] == "3"


async def test_a_time_out_and_a_slow_answer_are_one_argument() -> None:
    for failure in (httpx2.ConnectError, httpx2.ConnectError("refused")):
        with pytest.raises(httpx2.ConnectError):
            await ask(neighbour("customers", failure))
    with pytest.raises(httpx2.TimeoutException):
        await ask(neighbour("customers", Slow(30)))
    assert (await ask(neighbour("customers", get_customer=Slow(0.01, ADA)))).json() == ADA


async def test_an_iterator_has_an_answer_for_each_call() -> None:
    customers = neighbour("customers", get_customer=iter([503, httpx2.ReadTimeout, ADA]))
    assert (await ask(customers)).status_code == 503
    with pytest.raises(httpx2.ReadTimeout):
        await ask(customers)
    assert (await ask(customers)).json() == ADA
    with pytest.raises(Unfit, match="the test has no answer for one more call of getCustomer"):
        await ask(customers)
    assert len(customers.requests) == 4


async def test_an_answer_may_be_a_model() -> None:
    class Customer(BaseModel):
        id: str
        name: str

    assert (await ask(neighbour("customers", get_customer=Customer(id=CUSTOMER, name="Ada")))).json()["name"] == "Ada"


async def test_parameters_are_read_by_their_schema() -> None:
    for query in ("limit=7", "level=gold", "level=gold&level=bronze", ""):
        assert (await ask(neighbour("customers"), path=f"/v1/customers?{query}")).is_success
    key = {"Idempotency-Key": "17"}
    answer = await ask(neighbour("customers"), "POST", "/v1/customers", json={"name": "Ada"}, headers=key)
    assert answer.status_code == 201


REQUESTS: dict[str, tuple[Node, str]] = {
    "another path": (
        {"path": "/v2/customers"},
        "has no operation GET /v2/customers; there are GET /v1/customers, POST",
    ),
    "another method": ({"method": "PUT"}, f"has no operation PUT {PATH}"),
    "an unknown parameter": (
        {"path": "/v1/customers?page=2"},
        "has the parameter page, which specs/uses/customers.json",
    ),
    "a value in the path": ({"path": "/v1/customers/17"}, "getCustomer: customer_id does not fit"),
    "a value in the query": ({"path": "/v1/customers?limit=101"}, "list_customers: limit does not fit"),
    "a text for a number": ({"path": "/v1/customers?limit=many"}, "'many' is not of type 'integer'"),
    "a missing header": (
        {"method": "POST", "path": "/v1/customers", "json": {"name": "Ada"}},
        "lacks the header parameter",
    ),
    "an unknown field": (
        {
            "method": "POST",
            "path": "/v1/customers",
            "json": {"name": "Ada", "age": 7},
            "headers": {"Idempotency-Key": "17"},
        },
        "create_customer does not fit specs/uses/customers.json: Additional properties are not allowed ('age'",
    ),
    "a field of another type": (
        {"method": "POST", "path": "/v1/customers", "json": {"name": 7}, "headers": {"Idempotency-Key": "17"}},
        "customers.json: name: 7 is not of type 'string'",
    ),
    "no body": (
        {"method": "POST", "path": "/v1/customers", "headers": {"Idempotency-Key": "17"}},
        "has a body of no type, and specs/uses/customers.json has application/json",
    ),
    "a form": (
        {"method": "POST", "path": "/v1/customers", "data": {"name": "Ada"}, "headers": {"Idempotency-Key": "17"}},
        "has a body of application/x-www-form-urlencoded",
    ),
    "a body that nobody expects": (
        {"method": "DELETE", "json": {}},
        "application/json, and specs/uses/customers.json has no body",
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
async def test_a_request_that_does_not_fit_is_refused(case: str) -> None:
    options, reason = REQUESTS[case]
    customers = neighbour("customers")
    with pytest.raises(Unfit) as refused:
        await ask(customers, **options)
    assert reason in str(refused.value)
    assert customers.requests == []


ANSWERS: dict[str, tuple[Any, str]] = {
    "a field is missing": (
        {"id": CUSTOMER},
        "the answer of getCustomer does not fit specs/uses/customers.json: 'name' is",
    ),
    "a field has another type": (ADA | {"name": 5}, "name: 5 is not valid under any of the given schemas"),
    "a value is unknown": (ADA | {"level": "silver"}, "level: 'silver' is not one of ['gold', 'bronze']"),
    "an identifier is none": (ADA | {"id": "17"}, "id: '17' is not a 'uuid'"),
    "the status is unknown": (409, "has the status 409, which specs/uses/customers.json does not have"),
    "another media type": (
        httpx2.Response(200, text="Ada"),
        "has a body of text/plain, and specs/uses/customers.json has app",
    ),
    "a success without a body": (httpx2.Response(200), "has a body of no type"),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer_that_does_not_fit_is_refused(case: str) -> None:
    answer, reason = ANSWERS[case]
    with pytest.raises(Unfit) as refused:
        await ask(neighbour("customers", get_customer=answer))
    assert reason in str(refused.value)


def give_the_name_the_pattern(uses: Path, pattern: str) -> None:
    content = document()
    content["components"]["schemas"]["Customer"]["properties"]["name"] = {"type": "string", "pattern": pattern}
    uses.write_text(json.dumps(content))


@pytest.mark.parametrize("pattern", ["^[A-Z]{3}$", r"^-?[0-9]{1,10}(\.[0-9]{1,2})?$"])
async def test_a_sample_of_a_currency_or_a_decimal_number_fits(uses: Path, pattern: str) -> None:
    give_the_name_the_pattern(uses, pattern)
    await ask(neighbour("customers"))


async def test_a_sample_that_does_not_fit_its_pattern_is_refused(uses: Path) -> None:
    give_the_name_the_pattern(uses, "^[A-Z]+-[0-9]+$")
    with pytest.raises(Unfit, match="name: 'x' does not match"):
        await ask(neighbour("customers"))


def test_an_unknown_operation_or_neighbour_is_refused_at_once() -> None:
    with pytest.raises(
        Unfit, match=r"has no operation get_custommer; there are list_customers, create_customer, getCustomer"
    ):
        neighbour("customers", get_custommer=ADA)
    with pytest.raises(
        Unfit, match=r"specs/uses/orders\.json does not exist: write it by `fleet client orders OPERATION`"
    ):
        neighbour("orders")
