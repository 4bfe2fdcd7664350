"""An API, and its changes: some break callers, some do not, and in some cases oasdiff accepts a change that we refuse."""

import json
from collections.abc import Callable
from typing import Any

Node = dict[str, Any]
Change = Callable[[Node], object]


PAYER = {"type": "object", "properties": {"name": {"type": "string"}}}


def body(schema: str) -> Node:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def known() -> Node:
    """An API with one part of each kind."""
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
                    "security": [{"token": ["write"]}, {"key": []}],
                    "parameters": [
                        {"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"}}
                    ],
                    "responses": {"204": {"description": "Gone."}},
                },
            },
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "oauth2",
                    "description": "Of the issuer.",
                    "flows": {
                        "clientCredentials": {"tokenUrl": "https://issuer.example/token", "scopes": {"write": "…"}}
                    },
                },
                "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
            },
            "schemas": {
                "Parts": {
                    "type": "object",
                    "propertyNames": {"$ref": "#/components/schemas/Part"},
                    "additionalProperties": {"type": "integer"},
                },
                "Part": {"type": "string", "enum": ["door", "roof"]},
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
                        "parts": {"$ref": "#/components/schemas/Parts"},
                        "payer": PAYER,
                        "lines": {"type": "array", "items": PAYER},
                        "ratio": {"type": "number"},
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
                        "parts": {"$ref": "#/components/schemas/Parts"},
                    },
                    "required": ["number", "total", "note", "status"],
                },
                "Page": {
                    "type": "object",
                    "properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Invoice"}}},
                    "required": ["items"],
                },
            },
        },
    }
    return json.loads(json.dumps(document))  # so that no two places are the same object


def at(document: Node, path: str) -> Any:
    """Find a node by its keys with | between: New|properties|number is below the schemas, /v1/… below the paths."""
    top, *keys = path.split("|")
    node = document["paths"][top] if top.startswith("/") else document["components"]["schemas"][top]
    for key in keys:
        node = node[int(key) if isinstance(node, list) else key]
    return node


def top(**keys: Any) -> Change:
    return lambda document: document.update(keys)


def sign_in(scheme: str, **keys: Any) -> Change:
    return lambda document: document["components"]["securitySchemes"][scheme].update(keys)


def call_scheme_by_another_name(document: Node) -> None:
    schemes = document["components"]["securitySchemes"]
    schemes["api_key"] = schemes.pop("key")
    at(document, f"{ONE}|delete")["security"][1] = {"api_key": []}


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

TOKEN = [{"token": []}]
URL = "https://billing.example"

BREAKING: dict[str, tuple[Change, str]] = {
    "a path goes": (lambda document: document["paths"].pop("/v1/invoices"), "POST /v1/invoices is gone"),
    "an operation goes": (drop("/v1/invoices", "post"), "POST /v1/invoices is gone"),
    "a status of success goes": (
        both(put(f"{POST}|responses", **{"200": {"description": "Made."}}), drop(f"{POST}|responses", "201")),
        "the operation no longer answers 201",
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
    "a field of a field is wanted": (
        both(put("Money|properties", currency=TEXT), add("Money|required", "currency")),
        "the request: total.currency was added and is required",
    ),
    "a field of a field takes less": (
        put("Money|properties|amount", maximum=100),
        "the request: total.amount maximum is 100, was not set",
    ),
    "an optional field wants a field": (
        put("New|properties", payer={**PAYER, "required": ["name"]}),
        "the request: payer.name is required now",
    ),
    "a field of a list's items is wanted": (
        put("New|properties", lines={"type": "array", "items": {**PAYER, "required": ["name"]}}),
        "the request: lines[].name is required now",
    ),
    "a cookie is wanted": (
        add("/v1/invoices|get|parameters", {"name": "session", "in": "cookie", "required": True, "schema": TEXT}),
        "the cookie parameter session is required now",
    ),
    "a whole number is wanted": (
        put("New|properties", ratio={"type": "integer"}),
        "the request: ratio is integer, was number",
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
    "a key of a mapping is no longer taken": (
        put("Part", enum=["door"]),
        'the request: parts.<name> may no longer be "roof"',
    ),
    "an answer has a new key of a mapping": (
        put("Part", enum=["door", "roof", "wheel"]),
        '201: parts.<name> may also be "wheel" now',
    ),
    "an operation asks for a token": (
        put(POST, security=TOKEN),
        "security: the operation requires token, and nothing was enough",
    ),
    "every operation asks for a token": (
        top(security=TOKEN),
        "security: the operation requires token, and nothing was enough",
    ),
    "a way to sign in goes": (
        put(f"{ONE}|delete", security=[{"token": ["write"]}]),
        "security: the operation requires token (write), and key was enough",
    ),
    "another scope is wanted": (
        put(f"{ONE}|delete", security=[{"token": ["write", "admin"]}, {"key": []}]),
        "security: the operation requires token (write, admin) or key, and token (write) was enough",
    ),
    "two keys are wanted": (
        put(f"{ONE}|delete", security=[{"token": ["write"], "key": []}]),
        "security: the operation requires token (write) and key, and key was enough",
    ),
    "the key is sent elsewhere": (sign_in("key", name="X-Token"), "and key was enough"),
    "tokens come from elsewhere": (
        sign_in("token", flows={"clientCredentials": {"tokenUrl": "https://other.example", "scopes": {"write": "…"}}}),
        "and token (write) was enough",
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
    "an answer that only who asks for it gets": put(
        "/v1/invoices|get|responses", **{"206": {"description": "A part."}, "304": {"description": "Not modified."}}
    ),
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
    "whole numbers become numbers": put("New|properties|days", type="number"),
    "any pattern is taken": drop("New|properties|number", "pattern"),
    "another example": both(
        put("New|properties|number", example="A", examples=["B"]),
        put(f"{POST}|responses|201|content|application/json", example={"number": "C"}),
    ),
    "another page of documentation": both(
        put("New", externalDocs={"url": URL}), put(POST, externalDocs={"url": URL}), top(externalDocs={"url": URL})
    ),
    "other tags": both(put(POST, tags=["invoices"]), top(tags=[{"name": "invoices", "description": "…"}])),
    "another order": lambda document: document.update(paths=dict(reversed(document["paths"].items()))),
    "a field of our own": both(put(POST, **{"x-own": 1}), put("New", **{"x-own": 1}), top(**{"x-own": 1})),
    "other words about a way to sign in": sign_in("token", description="Of ours.", bearerFormat="JWT"),
    "another name for a way to sign in": call_scheme_by_another_name,
    "one more way to sign in": put(f"{ONE}|delete", security=[{"key": []}, {"token": ["write"]}, TOKEN[0]]),
    "fewer scopes are wanted": put(f"{ONE}|delete", security=[TOKEN[0], {"key": []}]),
    "nobody has to sign in": put(f"{ONE}|delete", security=[]),
    "what was open is said to be open": both(
        top(security=TOKEN), *(put(one, security=[]) for one in (POST, "/v1/invoices|get", f"{ONE}|get"))
    ),
    "the server is named": top(servers=[{"url": "/", "description": "Wherever this document is."}]),
    "one more server": top(servers=[{"url": "/"}, {"url": URL}]),
    "the style that it had": put(LIMIT, style="form", explode=True),
    "contact and licence": top(info={"title": "bills", "version": "2", "contact": {"name": "@acme"}}),
    "a header that OpenAPI ignores": add(
        "/v1/invoices|get|parameters", {"name": "Authorization", "in": "header", "schema": TEXT}
    ),
    "another default": put(f"{LIMIT}|schema", default=50),
    "other words": both(put("New", title="Fresh", description="…"), put(POST, summary="Make", operationId="make")),
    "a schema of another name": lambda document: document.update(
        json.loads(json.dumps(document).replace("schemas/Money", "schemas/Price").replace('"Money":', '"Price":'))
    ),
}

# Changes that we refuse and oasdiff accepts: oasdiff does not compare that part, or it needs knowledge of the callers.
STRICTER: dict[str, tuple[Change, str]] = {
    "any text is taken for a number": (
        put(f"{LIMIT}|schema", type="string"),
        "the query parameter limit is string, was integer",
    ),
    "an optional field of an answer goes": (drop("Invoice|properties", "hint"), "201: hint was removed"),
    "a list is written in another style": (
        put(LIMIT, style="pipeDelimited"),
        'limit: style is "pipeDelimited", was "form"',
    ),
    "a list is written as one value": (put(LIMIT, explode=False), "limit: explode is false, was true"),
    "a parameter becomes a document": (
        both(drop(LIMIT, "schema"), put(LIMIT, content={"application/json": {"schema": {"type": "integer"}}})),
        "the query parameter limit is a document now",
    ),
    "a header is written in another style": (
        put(f"{POST}|responses|201|headers|ETag", explode=True),
        "201: the header ETag: explode is true, was false",
    ),
    "another status of success": (
        put(f"{POST}|responses", **{"202": {"description": "Accepted."}}),
        "the operation may answer 202 now",
    ),
    "a success of any status": (
        put(f"{POST}|responses", **{"2XX": {"description": "Done."}}),
        "the operation may answer 2XX now",
    ),
    "an answer from elsewhere": (
        put("/v1/invoices|get|responses", **{"307": {"description": "There."}}),
        "the operation may answer 307 now",
    ),
    "the server moves": (top(servers=[{"url": URL}]), "the server / is gone"),
    "an operation moves": (put(POST, servers=[{"url": URL}]), "the server / is gone"),
    "a form is encoded in another way": (
        put(f"{POST}|requestBody|content|application/json", encoding={"note": {"style": "spaceDelimited"}}),
        "the request: encoding has changed, and this rule cannot judge the change",
    ),
    "we call back": (put(POST, callbacks={"done": {"{$url}": {}}}), "the operation: callbacks has changed"),
    "an answer links to something": (
        put(f"{POST}|responses|201", links={"it": {"operationId": "get"}}),
        "201: links has changed",
    ),
    "we call others": (
        top(webhooks={"done": {"post": {"responses": {"204": {"description": ""}}}}}),
        "the document: webhooks has changed",
    ),
    "another dialect": (
        top(jsonSchemaDialect="https://spec.openapis.org/oas/3.1/dialect/2024-11-10"),
        "jsonSchemaDialect",
    ),
    "another version of OpenAPI": (
        top(openapi="3.0.3"),
        "the document is of OpenAPI 3.0.3, and only 3.1 can be compared",
    ),
    "a field that is not known": (put(f"{ONE}|get", itemSchema={}), "the operation: itemSchema has changed"),
}


def changed(change: Change) -> Node:
    document = known()
    change(document)
    return document
