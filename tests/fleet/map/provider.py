"""A provider, a caller with committed expectations, and changes of the provider that the caller notices or does not notice."""

from collections.abc import Callable
from typing import Any

from fleet.client import uses
from fleet.service.openapi import Document

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
