"""What breaks callers of an API: our verdict and oasdiff's, of the same changes."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.openapi import Document
from fleet.openapi_diff import breaks
from tests import golang

OASDIFF = "github.com/oasdiff/oasdiff@v1.35.0"

Node = dict[str, Any]
Change = Callable[[Node], object]


def body(schema: str) -> Node:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def known() -> Node:
    """An API with one of each."""
    invoice_id = {"name": "invoice_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    number = {"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[A-Z]+$"}
    status = {"$ref": "#/components/schemas/Status"}
    money = {"$ref": "#/components/schemas/Money"}
    note = {"anyOf": [{"type": "string", "maxLength": 100}, {"type": "null"}]}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "billing", "version": "1"},
        "paths": {
            "/v1/invoices": {
                "get": {
                    "operationId": "list_invoices",
                    "parameters": [
                        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100, "default": 20}},
                        {"name": "status", "in": "query", "schema": status},
                    ],
                    "responses": {"200": {"description": "A page.", **body("Page")}},
                },
                "post": {
                    "operationId": "create_invoice",
                    "requestBody": {"required": True, **body("New")},
                    "responses": {
                        "201": {
                            "description": "Created.",
                            "headers": {"ETag": {"required": True, "schema": {"type": "string"}}},
                            **body("Invoice"),
                        },
                        "409": {"description": "Known."},
                    },
                },
            },
            "/v1/invoices/{invoice_id}": {
                "parameters": [invoice_id],
                "get": {"responses": {"200": {"description": "It.", **body("Invoice")}}},
                "delete": {
                    "deprecated": True,
                    "parameters": [
                        {"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"}}
                    ],
                    "responses": {"204": {"description": "Gone."}},
                },
            },
        },
        "components": {
            "schemas": {
                "Status": {"type": "string", "enum": ["draft", "issued"]},
                "Money": {
                    "type": "object",
                    "properties": {"amount": {"type": "integer", "minimum": 0}},
                    "required": ["amount"],
                    "additionalProperties": False,
                },
                "New": {
                    "type": "object",
                    "properties": {
                        "number": number,
                        "total": money,
                        "note": note,
                        "days": {"type": "integer", "default": 14},
                    },
                    "required": ["number", "total"],
                    "additionalProperties": False,
                },
                "Invoice": {
                    "type": "object",
                    "properties": {
                        "number": number,
                        "total": money,
                        "note": note,
                        "status": status,
                        "hint": {"type": "string"},
                    },
                    "required": ["number", "total", "note", "status"],
                },
                "Page": {
                    "type": "object",
                    "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Invoice"}}},
                    "required": ["items"],
                },
            }
        },
    }
    return json.loads(json.dumps(document))  # in which no two places are the same object


def at(document: Node, path: str) -> Any:
    """A node by its keys with | between: New|properties|number is below the schemas, /v1/… below the paths."""
    top, *keys = path.split("|")
    node = document["paths"][top] if top.startswith("/") else document["components"]["schemas"][top]
    for key in keys:
        node = node[int(key) if isinstance(node, list) else key]
    return node


def put(path: str, **keys: Any) -> Change:
    return lambda document: at(document, path).update(keys)


def drop(path: str, *keys: str) -> Change:
    return lambda document: [at(document, path).pop(key) for key in keys]


def add(path: str, value: Any) -> Change:
    return lambda document: at(document, path).append(value)


def take(path: str, value: Any) -> Change:
    return lambda document: at(document, path).remove(value)


def both(*changes: Change) -> Change:
    return lambda document: [change(document) for change in changes]


def rename_parameter(document: Node) -> None:
    item = document["paths"].pop("/v1/invoices/{invoice_id}")
    item["parameters"][0]["name"] = "id"
    document["paths"]["/v1/invoices/{id}"] = item


POST, ONE = "/v1/invoices|post", "/v1/invoices/{invoice_id}"
LIMIT = "/v1/invoices|get|parameters|0"
TEXT = {"type": "string"}

BREAKING: dict[str, tuple[Change, str]] = {
    "a path goes": (lambda document: document["paths"].pop("/v1/invoices"), "POST /v1/invoices is gone"),
    "an operation goes": (drop("/v1/invoices", "post"), "POST /v1/invoices is gone"),
    "a status of success goes": (
        both(put(f"{POST}|responses", **{"200": {"description": "Made."}}), drop(f"{POST}|responses", "201")),
        "it no longer answers 201",
    ),
    "an answer in another format": (
        both(
            drop(f"{POST}|responses|201|content", "application/json"),
            put(f"{POST}|responses|201|content", **{"text/csv": {}}),
        ),
        "201 is gone",
    ),
    "a field of an answer goes": (
        both(drop("Invoice|properties", "number"), take("Invoice|required", "number")),
        "201: number was removed",
    ),
    "a field of a list's items goes": (
        both(drop("Invoice|properties", "total"), take("Invoice|required", "total")),
        "200: items[].total was removed",
    ),
    "a field of an answer may be missing": (take("Invoice|required", "number"), "201: number may be missing now"),
    "a field of an answer may be null": (
        put("Invoice|properties", status={"anyOf": [{"$ref": "#/components/schemas/Status"}, {"type": "null"}]}),
        "201: status may be null now",
    ),
    "a field of an answer has another type": (
        put("Invoice|properties", hint={"type": "integer"}),
        "201: hint is integer, was string",
    ),
    "an answer has a new value": (
        put("Status", enum=["draft", "issued", "paid"]),
        '201: status may also be "paid" now',
    ),
    "an answer has longer text": (
        put("Invoice|properties|number", maxLength=80),
        "201: number maxLength is 80, was 40",
    ),
    "an answer has lower numbers": (
        drop("Money|properties|amount", "minimum"),
        "201: total.amount minimum is not set, was 0",
    ),
    "a header of an answer goes": (
        drop(f"{POST}|responses|201|headers", "ETag"),
        "201: the header ETag may be missing now",
    ),
    "a header of an answer may be missing": (
        put(f"{POST}|responses|201|headers|ETag", required=False),
        "201: the header ETag may be missing now",
    ),
    "a required field is wanted": (
        both(put("New|properties", due=TEXT), add("New|required", "due")),
        "the request: due was added and is required",
    ),
    "a field becomes required": (add("New|required", "note"), "the request: note is required now"),
    "a field is no longer taken": (drop("New|properties", "days"), "the request: days was removed"),
    "null is no longer taken": (
        put("New|properties", note={"type": "string", "maxLength": 100}),
        "the request: note may no longer be null",
    ),
    "another type is wanted": (put("New|properties", days=TEXT), "the request: days is string, was integer"),
    "a value is no longer taken": (
        put("Status", enum=["draft"]),
        'the query parameter status may no longer be "issued"',
    ),
    "only some values are taken": (
        put("New|properties|days", enum=[7, 14]),
        "the request: days enum is [7, 14], was not set",
    ),
    "only shorter text is taken": (
        put("New|properties|number", maxLength=20),
        "the request: number maxLength is 20, was 40",
    ),
    "only longer text is taken": (
        put("New|properties|number", minLength=2),
        "the request: number minLength is 2, was 1",
    ),
    "another pattern is wanted": (put("New|properties|number", pattern="^[a-z]+$"), "the request: number pattern is"),
    "a body is wanted": (
        put(f"{ONE}|delete", requestBody={"required": True, **body("New")}),
        "the request needs a body now",
    ),
    "no body is taken": (drop(POST, "requestBody"), "the request has no body any more"),
    "a body in another format": (
        both(
            drop(f"{POST}|requestBody|content", "application/json"),
            put(f"{POST}|requestBody|content", **{"text/csv": {"schema": TEXT}}),
        ),
        "the request is gone",
    ),
    "a parameter is wanted": (
        add("/v1/invoices|get|parameters", {"name": "year", "in": "query", "required": True, "schema": TEXT}),
        "the query parameter year is required now",
    ),
    "a header is wanted": (
        add("/v1/invoices|get|parameters", {"name": "X-Region", "in": "header", "required": True, "schema": TEXT}),
        "the header parameter X-Region is required now",
    ),
    "a parameter becomes required": (put(LIMIT, required=True), "the query parameter limit is required now"),
    "a parameter goes": (
        take("/v1/invoices|get|parameters", known()["paths"]["/v1/invoices"]["get"]["parameters"][0]),
        "limit was removed",
    ),
    "a parameter is smaller": (put(f"{LIMIT}|schema", maximum=50), "the query parameter limit maximum is 50, was 100"),
    "a parameter has another type": (
        put(f"{LIMIT}|schema", type="boolean"),
        "the query parameter limit is boolean, was integer",
    ),
    "a parameter of the path has another type": (
        put(f"{ONE}|parameters|0", schema={"type": "integer"}),
        "the path parameter invoice_id is integer, was string (uuid)",
    ),
}

HARMLESS: dict[str, Change] = {
    "nothing": lambda _: None,
    "a path": lambda document: document["paths"].update(
        {"/v1/lines": {"get": {"responses": {"200": {"description": ""}}}}}
    ),
    "an operation": put(ONE, put={"responses": {"204": {"description": ""}}}),
    "another name for a parameter in the path": rename_parameter,
    "a deprecated operation goes": drop(ONE, "delete"),
    "an operation is deprecated": put(POST, deprecated=True),
    "another failure": put(f"{POST}|responses", **{"422": {"description": "Invalid."}}),
    "a failure goes": drop(f"{POST}|responses", "409"),
    "another format of an answer": put(f"{POST}|responses|201|content", **{"text/csv": {}}),
    "a field of an answer": both(put("Invoice|properties", due=TEXT), add("Invoice|required", "due")),
    "a field of a closed object": lambda document: document["components"]["schemas"]["Money"]["properties"].update(
        currency=TEXT
    ),
    "a field of an answer is always there": add("Invoice|required", "hint"),
    "an answer has shorter text": put("Invoice|properties|number", maxLength=20),
    "an answer is never null": put("Invoice|properties", note={"type": "string", "maxLength": 100}),
    "a header of an answer": put(f"{POST}|responses|201|headers", Location={"required": True, "schema": TEXT}),
    "an optional field is taken": put("New|properties", due=TEXT),
    "a field is no longer required": take("New|required", "number"),
    "longer text is taken": put("New|properties|number", maxLength=80),
    "null is taken": put("New|properties", days={"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    "a body is optional": put(f"{POST}|requestBody", required=False),
    "an optional parameter": add("/v1/invoices|get|parameters", {"name": "year", "in": "query", "schema": TEXT}),
    "a parameter is larger": put(f"{LIMIT}|schema", maximum=200),
    "another default": put(f"{LIMIT}|schema", default=50),
    "other words": both(put("New", title="Fresh", description="…"), put(POST, summary="Make", operationId="make")),
    "a schema of another name": lambda document: document.update(
        json.loads(json.dumps(document).replace("schemas/Money", "schemas/Price").replace('"Money":', '"Price":'))
    ),
}

# Where we refuse what oasdiff lets pass: there it takes knowledge of the callers.
STRICTER: dict[str, tuple[Change, str]] = {
    "any text is taken for a number": (
        put(f"{LIMIT}|schema", type="string"),
        "the query parameter limit is string, was integer",
    ),
    "an optional field of an answer goes": (drop("Invoice|properties", "hint"), "201: hint was removed"),
    "whole numbers become numbers": (
        put("New|properties|days", type="number"),
        "the request: days is number, was integer",
    ),
    "any pattern is taken": (drop("New|properties|number", "pattern"), "the request: number pattern is not set"),
}


def changed(change: Change) -> Node:
    document = known()
    change(document)
    return document


def cases(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in table.items()])


@cases(BREAKING | STRICTER)
def test_what_breaks_callers_is_told(case: tuple[Change, str]) -> None:
    change, told = case
    found = [one.what for one in breaks(Document(known()), Document(changed(change)))]
    assert [what for what in found if told in what], found


@cases(HARMLESS)
def test_what_breaks_nobody_passes(case: Change) -> None:
    assert breaks(Document(known()), Document(changed(case))) == []


def test_a_break_is_told_of_every_operation_that_it_breaks() -> None:
    found = breaks(Document(known()), Document(changed(put("Status", enum=["draft", "issued", "paid"]))))
    assert [str(one.operation) for one in found] == [
        "GET /v1/invoices",
        "POST /v1/invoices",
        "GET /v1/invoices/{invoice_id}",
    ]


def test_a_field_named_like_a_keyword_is_a_field() -> None:
    old, new = known(), known()
    old["components"]["schemas"]["Invoice"]["properties"]["default"] = TEXT
    (one, *_) = breaks(Document(old), Document(new))
    assert "default was removed" in one.what


@pytest.mark.slow
@pytest.mark.xdist_group("delivery")
def test_oasdiff_is_of_the_same_opinion(tmp_path: Path) -> None:
    oasdiff = golang.built("oasdiff", OASDIFF)

    def refused(change: Change) -> bool:
        for name, document in (("old", known()), ("new", changed(change))):
            (tmp_path / f"{name}.json").write_text(json.dumps(document))
        command = [oasdiff, "breaking", "--fail-on", "WARN", "--flatten-params", "old.json", "new.json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 1

    changes = {name: case[0] for name, case in (BREAKING | STRICTER).items()} | HARMLESS
    assert {name for name, change in changes.items() if refused(change)} == BREAKING.keys()
