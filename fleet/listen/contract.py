"""Write the contract of a message as Python: the wanted fields, and a class for each object in them.

Types are of `chassis.fields` where these accept no less than the schema. Lengths, ranges and patterns are left out: the sender
checks them, and a reader that refuses a longer text parks a message without need.
"""

import json
import keyword
import math
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from fleet.client import uses
from fleet.client.models import class_name
from fleet.client.sources import nearest
from fleet.client.uses import SCHEMAS, Inexpressible, snake
from fleet.errors import FleetError
from fleet.service.openapi import Document, Node

CURRENCY = "^[A-Z]{3}$"
NO_NUL = r"^[^\x00]*$"
MAX_SAFE_INTEGER = 2**53 - 1
FORMATS = {
    "uuid": ("fields.Identifier", "UUID"),
    "date": ("fields.Date", "date"),
    "date-time": ("fields.Timestamp", "datetime"),
}
STRUCTURE = {"$ref", "allOf", "anyOf", "const", "enum", "items", "oneOf", "properties", "type"}
TAKEN = {"Annotated", "Any", "Contract", "Field", "Literal", "OnEvent", "OnJob", "UnitOfWork"}
"""Names that the module imports, so no class may have one of these names."""
SHADOWING = {"bool", "dict", "fields", "float", "int", "list", "str"}
"""Names that types use: a field with such a name and a default would hide the type from the fields below."""


@dataclass(frozen=True)
class Type:
    """The type of a field in a contract (`wire`) and in the command of a use case (`plain`).

    `plain` is empty for an object, for which a use case has types of its own.
    """

    wire: str
    plain: str


@dataclass(frozen=True)
class Body:
    """The schema of a body with its wanted fields, and the schemas that they refer to."""

    schema: Node
    schemas: Node

    def resolved(self, node: Any) -> Node:
        """Follow references to schemas. An earlier check has found that their targets exist. Raises Inexpressible."""
        for _ in range(20):
            if not isinstance(node, dict):
                return {}
            if "$ref" not in node:
                return node
            node = self.schemas[node["$ref"].removeprefix(SCHEMAS).replace("~1", "/").replace("~0", "~")]
        raise Inexpressible("a schema refers to itself")


def body(document: Document, name: str, payload: Any, wanted: tuple[str, ...]) -> Body:
    """Select the fields of a message; all of them if none is named. Raises FleetError and Inexpressible."""
    if isinstance(payload, dict) and "schemaFormat" in payload:
        if "avro" in str(payload["schemaFormat"]) or "protobuf" in str(payload["schemaFormat"]):
            raise Inexpressible(f"its schema has the format {payload['schemaFormat']}, and not JSON Schema")
        payload = payload["schema"]
    followed = uses.followed(document, payload)
    whole = Body({}, dict(uses.closure(document, followed))).resolved(followed)
    properties = whole.get("properties")
    if not isinstance(properties, dict) or not properties:
        raise Inexpressible("its body is no object with named fields")
    for one in wanted:
        if one not in properties:
            raise FleetError(f"{name} has no field {one}{nearest(one, properties)}")
    chosen = {one: properties[one] for one in properties if not wanted or one in wanted}
    required = [one for one in whole.get("required", ()) if one in chosen]
    schema = {"type": "object", "properties": chosen, "required": required}
    schemas = dict(uses.closure(document, schema))
    uses.refuse_keywords("the message", schema)
    for one, node in schemas.items():
        uses.refuse_keywords(f"the schema {one}", node)
    return Body(schema, schemas)


@dataclass(frozen=True)
class Code:
    """The classes of a contract. `plain` has the types of the fields that a command can have, by the name in the contract."""

    classes: str
    plain: dict[str, str]
    has_time: bool
    """Whether `occurred_at` is an instant: the time for the use case."""


def write(name: str, body: Body, command: str) -> Code:
    """Write the class of that name, below the classes that it needs. None may have the command's name. Raises Inexpressible."""
    writer = _Writer(body, TAKEN | {command})
    types = writer.write_class(name, body.schema)
    plain = {field: type_.plain for field, type_ in types.items() if type_.plain}
    has_time = plain.get("occurred_at") == "datetime"
    if has_time:
        del plain["occurred_at"]
    return Code("\n\n".join(writer.classes.values()), plain, has_time)


class _Writer:
    def __init__(self, body: Body, taken: Set[str]) -> None:
        self.classes: dict[str, str] = {}
        self._body, self._taken = body, taken
        self._schemas: Node = {}
        self._open: list[str] = []

    def write_class(self, name: str, schema: Node) -> dict[str, Type]:
        """Write the class of an object after the classes of its fields. Return the types of its fields."""
        if name in self._taken or keyword.iskeyword(name) or self._schemas.setdefault(name, schema) != schema:
            raise Inexpressible(f"the class {name} would have the name of another one")
        if name in self._open:
            raise Inexpressible(f"the schema {name} refers to itself")
        self._open.append(name)
        types: dict[str, Type] = {}
        lines = []
        for written, node in schema["properties"].items():
            field = _field(written)
            if field in types:
                raise Inexpressible(f"two fields of {name} would be called {field}")
            type_ = self.type_of(node, name + class_name(written))
            if written not in schema.get("required", ()):
                type_ = _union([type_, Type("None", "None")])
            types[field] = type_
            wire = type_.wire if field == written else f"Annotated[{type_.wire}, Field(alias={written!r})]"
            lines.append(f"    {field}: {wire}{'' if written in schema.get('required', ()) else ' = None'}\n")
        self._open.pop()
        self.classes[name] = f"class {name}(Contract):\n{''.join(lines)}"
        return types

    def type_of(self, node: Any, name: str) -> Type:
        """Return the type of a schema. `name` is for an object that has no name of its own. Raises Inexpressible."""
        if isinstance(node, dict) and "$ref" in node:
            name = class_name(node["$ref"].removeprefix(SCHEMAS))
        schema = self._body.resolved(node)
        if parts := [one for one in schema.get("allOf", ()) if self._body.resolved(one).keys() & STRUCTURE]:
            if len(parts) > 1 or schema.keys() & STRUCTURE - {"allOf"}:
                raise Inexpressible(f"{name} joins several schemas by allOf, which a contract cannot express")
            return self.type_of(parts[0], name)
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            named = [name if one is choices[0] else f"{name}{number}" for number, one in enumerate(choices, 1)]
            return _union([self.type_of(*both) for both in zip(choices, named, strict=True)])
        if values := [schema["const"]] if "const" in schema else schema.get("enum"):
            return _literal(values, name)
        if isinstance(kinds := schema.get("type"), list):
            return _union([self.type_of({**schema, "type": kind}, name) for kind in kinds])
        return self._plain(schema, name)

    def _plain(self, schema: Node, name: str) -> Type:
        match schema.get("type", "object" if schema.get("properties") else None):
            case "object" if is_money(schema):
                return Type("fields.MoneyField", "Money")
            case "object" if schema.get("properties"):
                self.write_class(name, schema)
                return Type(name, "")
            case "object":
                values = self.type_of(schema.get("additionalProperties") or {}, f"{name}Value")
                return Type(f"dict[str, {values.wire}]", values.plain and f"dict[str, {values.plain}]")
            case "array":
                items = self.type_of(schema.get("items", {}), f"{name}Item")
                return Type(f"list[{items.wire}]", items.plain and f"list[{items.plain}]")
            case "string":
                bare = "fields.Text" if schema.get("pattern") == NO_NUL else "str"
                return Type(*FORMATS.get(schema.get("format", ""), (bare, "str")))
            case "integer":
                return Type("fields.Integer" if _is_safe(schema) else "int", "int")
            case "number":
                return Type("float", "float")
            case "boolean":
                return Type("fields.Boolean", "bool")
            case "null":
                return Type("None", "None")
            case None:
                return Type("Any", "Any")
            case other:
                raise Inexpressible(f"{name} is of the type {other!r}, which JSON does not have")


def is_money(schema: Node) -> bool:
    """Return whether the schema is that of an amount of money, as the chassis writes it."""
    properties = schema.get("properties", {})
    if properties.keys() != {"amount", "currency"} or schema.get("additionalProperties") is not False:
        return False
    return _is_safe(properties["amount"]) and properties["currency"].get("pattern") == CURRENCY


def _is_safe(schema: Node) -> bool:
    """Return whether the schema allows only integers that every reader of JSON can hold."""
    bounds = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    return schema.get("type") == "integer" and bounds[0] >= -MAX_SAFE_INTEGER and bounds[1] <= MAX_SAFE_INTEGER


def _field(written: str) -> str:
    """Return the name of a field, under which no attribute of Pydantic's models is hidden."""
    name = snake(written)
    is_taken = hasattr(BaseModel, name) or name.startswith("model_") or name in SHADOWING or keyword.issoftkeyword(name)
    return f"{name}_" if is_taken else name


def _literal(values: list[Any], name: str) -> Type:
    if not all(isinstance(one, str | int | None) for one in values):
        raise Inexpressible(f"{name} has values that are neither text nor integers: {json.dumps(values)[:100]}")
    made = f"Literal[{', '.join(repr(one) for one in values)}]"
    return Type(made, made)


def _union(types: list[Type]) -> Type:
    wire, plain = (_joined([getattr(one, side) for one in types]) for side in ("wire", "plain"))
    return Type(wire, plain if all(one.plain for one in types) else "")


def _joined(names: list[str]) -> str:
    names = sorted(dict.fromkeys(names), key=lambda name: name == "None")
    if names[-1] == "None" and any(name.endswith(" | None") for name in names):
        names.pop()
    return " | ".join(names)
