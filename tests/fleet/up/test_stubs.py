"""The answers of stubs: from examples and schemas, within bounds whatever the document contains."""

import json
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from chassis.dev.embedded import free_port
from jsonschema import Draft202012Validator

from fleet.client.uses import parse
from fleet.up import stubs
from fleet.up.samples import Samples
from fleet.up.stubs import Stub

ORDER = {
    "type": "object",
    "required": ["id", "status", "lines", "total", "placed_at"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "status": {"$ref": "#/components/schemas/Status"},
        "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Line"}},
        "total": {"type": "number", "exclusiveMinimum": 10, "multipleOf": 0.5},
        "placed_at": {"type": "string", "format": "date-time"},
        "note": {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 8, "maxLength": 9}]},
        "parent": {"$ref": "#/components/schemas/Order"},
        "discount": {"type": ["integer", "null"], "exclusiveMaximum": 0},
        "shipping": {"allOf": [{"$ref": "#/components/schemas/Line"}, {"properties": {"express": {"const": True}}}]},
    },
}
LINE = {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string", "examples": ["A-1"]}}}
SCHEMAS = {"Order": ORDER, "Line": LINE, "Status": {"enum": ["open", "closed"]}}


def json_answer(schema: Any = None, **more: Any) -> dict[str, Any]:
    return {"description": "", "content": {"application/json": {"schema": schema, **more}}}


def stub(paths: dict[str, Any], schemas: dict[str, Any] = SCHEMAS) -> Stub:
    content = {"openapi": "3.1.0", "info": {}, "paths": paths, "components": {"schemas": schemas}}
    return Stub("orders", "orders", "here", parse("here", json.dumps(content).encode()))


def answer_of(schema: Any, schemas: dict[str, Any] = SCHEMAS) -> Any:
    """Return the status and the content of the answer that has this schema."""
    status, _, body = stub({"/x": {"get": {"responses": {"200": json_answer(schema)}}}}, schemas).reply("GET", "/x")
    return json.loads(body) if status == 200 else status


def test_a_value_follows_its_schema() -> None:
    order = answer_of({"$ref": "#/components/schemas/Order"})
    document = {"$ref": "#/components/schemas/Order", "components": {"schemas": SCHEMAS}}
    Draft202012Validator(document).validate(order)
    assert order["lines"] == [{"sku": "A-1"}]
    assert (order["status"], order["total"], order["note"], order["discount"]) == ("open", 10.5, "samplexx", -1)
    assert order["shipping"] == {"sku": "A-1", "express": True}


def test_an_answer_is_the_example_or_the_wanted_status() -> None:
    headers = {"ETag": {"schema": {"type": "string"}, "example": '"1"'}, "content-length": {"example": "5"}}
    orders = stub(
        {
            "/v1/orders": {
                "get": {"responses": {"200": json_answer(examples={"two": {"value": [{"id": 2}]}})}},
                "post": {
                    "responses": {"201": json_answer(example={"id": 1}) | {"headers": headers}, "409": json_answer({})}
                },
            },
            "/v1/orders/{id}": {"get": {"responses": {"default": json_answer({"type": "integer"})}}},
            "/v1/orders/all": {"delete": {"responses": {"204": {"description": ""}}}},
        }
    )
    assert orders.reply("GET", "/v1/orders?limit=3")[2] == b'[{"id": 2}]'
    assert orders.reply("POST", "/v1/orders") == (
        201,
        {"ETag": '"1"', "Content-Type": "application/json"},
        b'{"id": 1}',
    )
    assert orders.reply("POST", "/v1/orders", "code=409")[0] == 409
    assert orders.reply("POST", "/v1/orders", "code=418")[0] == 201
    assert orders.reply("GET", "/v1/orders/7")[::2] == (200, b"1")
    assert orders.reply("DELETE", "/v1/orders/all") == (204, {}, b"")
    status, _, body = orders.reply("PUT", "/v1/orders")
    assert (status, "it has GET, POST there" in json.loads(body)["detail"]) == (405, True)
    assert orders.reply("GET", "/v1/nothing")[0] == 404


@pytest.mark.parametrize(
    "reference",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "https://192.0.2.1/x.json",
        "other.json#/a",
        "#/components/schemas/None",
        "#/openapi/0",
        7,
        None,
        ["#"],
    ],
)
def test_a_reference_leads_nowhere_outside_of_the_document(reference: Any) -> None:
    assert answer_of({"type": "object", "properties": {"a": {"$ref": reference}, "b": {"type": "boolean"}}}) == {
        "b": True
    }


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    loop = {"$ref": "#/components/schemas/Loop"}
    assert answer_of(loop, {"Loop": loop}) is None
    doubling = {"type": "object", "properties": dict.fromkeys("abc", loop)}
    answer = json.dumps(answer_of(loop, {"Loop": doubling}))
    assert len(answer) < 100_000
    unions = {"anyOf": [loop, loop], "allOf": [loop, loop]}
    assert answer_of(loop, {"Loop": unions}) is None
    assert answer_of(loop, {"Loop": {"allOf": [loop, loop]}}) in (None, {})


ODD = [
    {"type": "array", "minItems": 10**12, "items": {"type": "boolean"}},
    {"type": "array", "minItems": "x", "items": []},
    {"type": "string", "minLength": 10**12},
    {"type": "string", "maxLength": -5, "pattern": "(a+)+$", "format": ["uuid"]},
    {"type": "integer", "multipleOf": 0},
    {"type": "number", "minimum": "x"},
    {"type": "integer", "minimum": 10**400},
    {"type": "object", "properties": ["a"], "required": 3},
    {"type": {"a": 1}},
    {"type": "object", "properties": {str(number): {"type": "boolean"} for number in range(5000)}},
    {"enum": []},
    {"anyOf": [7]},
    {"allOf": 3},
    [],
    True,
    "x",
]


@pytest.mark.parametrize("schema", ODD, ids=range(len(ODD)))
def test_an_odd_schema_has_a_short_answer(schema: Any) -> None:
    assert len(json.dumps(answer_of(schema))) < 30_000


def test_an_odd_answer_is_a_problem_that_names_the_stub() -> None:
    for responses in ({}, {"200": []}, {"200": {"content": {"application/json": []}}}, {"999": {}}):
        status, _, _ = stub({"/x": {"get": {"responses": responses}}}).reply("GET", "/x")
        assert status in (200, 501)
    long = {"type": "array", "minItems": 3, "items": {"example": "x" * (stubs.MAX_ANSWER_BYTES // 2)}}
    assert answer_of(long) == 501
    assert json.loads(Stub("orders", "orders", missing="no document").reply("GET", "/")[2]) == {
        "type": "about:blank",
        "title": "Stub",
        "status": 501,
        "code": "stub",
        "detail": "the stub of orders: no document",
    }


def test_an_answer_that_is_no_json_is_the_text_of_its_example() -> None:
    content = {"image/png": {"schema": {}}, "text/csv": {"example": "id,total\n1,2\n"}}
    report = stub({"/x": {"get": {"responses": {"200": {"description": "", "content": content}}}}})
    assert report.reply("GET", "/x") == (200, {"Content-Type": "text/csv"}, b"id,total\n1,2\n")
    content["application/json; charset=utf-8"] = {"example": [1]}
    report = stub({"/x": {"get": {"responses": {"200": {"description": "", "content": content}}}}})
    assert report.reply("GET", "/x") == (200, {"Content-Type": "application/json"}, b"[1]")


def test_a_header_has_no_second_line() -> None:
    for name, value in (("X-A", "a\r\nX-B: b"), ("X-A\r\nX-B", "a"), ("Transfer-Encoding", "chunked")):
        answer = json_answer(example=1) | {"headers": {name: {"example": value}}}
        _, headers, _ = stub({"/x": {"get": {"responses": {"200": answer}}}}).reply("GET", "/x")
        assert headers == {"Content-Type": "application/json"}
    odd = {"description": "", "content": {"application/\r\nX: y+json": {"example": 1}}}
    assert stub({"/x": {"get": {"responses": {"200": odd}}}}).reply("GET", "/x") == (200, {}, b"")


def test_the_number_of_values_is_bounded() -> None:
    document = stub({}).document
    assert document is not None
    samples = Samples(document)
    wide = {"type": "object", "properties": {str(number): {"type": "boolean"} for number in range(5000)}}
    assert len(samples.of(wide)) < 1001


def test_a_stub_answers_over_http() -> None:
    orders = stub(
        {"/v1/orders": {"post": {"responses": {"201": json_answer(example={"id": 1})}}, "get": {"responses": {}}}}
    )
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(orders.running(port))
        client = stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30))
        created = client.post("/v1/orders", json={"a": "b" * 100_000})
        assert (created.status_code, created.json(), created.headers["x-stub"]) == (201, {"id": 1}, "orders")
        assert client.head("/v1/orders").content == b""
        assert client.patch("/v1/orders").status_code == 405
