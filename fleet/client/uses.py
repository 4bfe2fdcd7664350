"""Select the part of a neighbour's API that a service uses: some operations, and the schemas that they need."""

import json
import keyword
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.client import sources
from fleet.errors import FleetError
from fleet.service.openapi import SPEC, Document, Node, Operation, as_3_1

SCHEMAS = "#/components/schemas/"
LEFT_OUT = {"callbacks", "example", "examples", "externalDocs", "links", "servers", "summary", "tags", "title"}
"""Keywords that a caller does not need. `x-…` is left out too."""
INEXPRESSIBLE = {
    *("$dynamicRef", "contains", "dependentRequired", "dependentSchemas", "else", "if", "not", "patternProperties"),
    *("prefixItems", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
}
"""Keywords of a schema that a Pydantic model does not express."""
JSON_TYPE = re.compile(r"application/(.+\+)?json")


MALFORMED = (AttributeError, LookupError, TypeError, ValueError, RecursionError)
"""The errors of code that reads a document whose parts have other types than OpenAPI says."""


class Inexpressible(Exception):
    """No typed function can express the operation, for this reason."""


def snake(name: str) -> str:
    """Turn an operation id such as `getPetById` or `repos/list-tags` into the name of a function."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    made = re.sub(r"\W+", "_", words, flags=re.ASCII).strip("_").lower()
    return f"{made}_" if keyword.iskeyword(made) else made if made[:1].isalpha() else f"call_{made}"


def module_of(name: str) -> str:
    """Return the name of the neighbour's module. Raises FleetError for a name that no service has."""
    if sources.NAME.fullmatch(name) is None or keyword.iskeyword(name):
        raise FleetError(f"{name!r} is not the name of a service: write it in kebab-case, as in user-profile")
    return snake(name)


def read_source(name: str, source: str | None, config: Path) -> Document:
    """Read the neighbour's document: an OpenAPI file, a folder, a git address, or its entry in fleet.toml.

    Raises FleetError.
    """
    return parse(*sources.find(name, source, config).document(SPEC, "OpenAPI"))


def parse(where: str, content: bytes) -> Document:
    """Parse an OpenAPI document, as JSON or as YAML; OpenAPI 3.0 becomes 3.1. Raises FleetError."""
    read = sources.parse(where, content, "OpenAPI")
    try:
        document = Document(as_3_1(read))
    except (FleetError, RecursionError) as error:
        raise FleetError(
            f"{where}: the file{str(error).removeprefix(SPEC)}. Correct it, or name another file"
        ) from None
    if not document.version.startswith("3."):
        raise FleetError(f"{where} is of OpenAPI {document.version}: convert it to OpenAPI 3")
    return document


@dataclass
class Selection:
    """The document for `uses`, and the operations that were refused, each with its reason."""

    content: Node
    refused: dict[str, str] = field(default_factory=dict)


def known_operations(document: Document) -> dict[str, Operation]:
    """Return the operations by the names of their functions."""
    return {snake(_id(one)): one for one in document.operations}


def _id(operation: Operation) -> str:
    """Return the operation's id; its method and path if it has none, as in `get_blocks_latest`."""
    written = operation.content.get("operationId")
    return written if isinstance(written, str) and written else f"{operation.method} {operation.path}"


def select(
    document: Document, wanted: Iterable[str], before: Node | None, judge: Callable[[Node], object]
) -> Selection:
    """Copy operations with their schemas. Operations and schemas in `before` stay as the team has them.

    `judge` gets a document with one operation, and raises Inexpressible to refuse it. Raises FleetError.
    """
    known = known_operations(document)
    content: Node = {"openapi": document.version, "info": _info(document), "paths": {}, "components": {"schemas": {}}}
    if before is not None:
        content = json.loads(json.dumps(before))
        content.setdefault("components", {}).setdefault("schemas", {})
    selection = Selection(content)
    for name in wanted:
        operation = known.get(snake(name))
        if operation is None:
            raise FleetError(f"there is no operation {name}{sources.nearest(snake(name), known)}")
        try:
            _refuse_repeated(document, snake(name))
            copied = _copied(document, operation)
            schemas = dict(closure(document, copied))
            expressible(copied, schemas)
            judge(
                {**content, "paths": {operation.path: {operation.method: copied}}, "components": {"schemas": schemas}}
            )
        except (Inexpressible, *MALFORMED) as reason:
            is_known = isinstance(reason, Inexpressible)
            selection.refused[snake(name)] = (
                str(reason) if is_known else f"it is malformed: {type(reason).__name__} {reason}"
            )
            continue
        content["paths"].setdefault(operation.path, {}).setdefault(operation.method, copied)
        for schema, node in schemas.items():
            content["components"]["schemas"].setdefault(schema, node)
        schemes = document.content.get("components", {}).get("securitySchemes", {})
        for scheme in (scheme for way in copied.get("security", ()) for scheme in way if scheme in schemes):
            content["components"].setdefault("securitySchemes", {}).setdefault(scheme, schemes[scheme])
    return selection


def _refuse_repeated(document: Document, name: str) -> None:
    """Refuse a name that several operations have. Raises Inexpressible."""
    same = [str(one) for one in document.operations if snake(_id(one)) == name]
    if len(same) > 1:
        raise Inexpressible(f"{' and '.join(same)} have the same name")


def pruned(content: Node) -> Node:
    """Return the document without schemas that no operation needs. Raises FleetError for a reference to nothing."""
    document = Document(content)
    try:
        needed = dict(closure(document, content["paths"]))
    except (Inexpressible, *MALFORMED) as reason:
        is_known = isinstance(reason, Inexpressible)
        raise FleetError(str(reason) if is_known else f"the document is malformed: {reason!r}") from None
    return {**content, "components": {**content["components"], "schemas": dict(sorted(needed.items()))}}


def _info(document: Document) -> Node:
    info = document.content.get("info", {})
    return {key: str(info[key]) for key in ("title", "version") if key in info}


def _copied(document: Document, operation: Operation) -> Node:
    """Copy an operation as `followed` copies its nodes. Raises Inexpressible."""
    content = {key: value for key, value in operation.content.items() if key not in ("parameters", "responses")}
    content["parameters"] = list(operation.parameters)
    content["responses"] = operation.responses
    content["operationId"] = _id(operation)
    if "security" in document.content:
        content.setdefault("security", document.content["security"])
    return followed(document, {key: value for key, value in content.items() if value != []})


def followed(document: Document, node: Any, depth: int = 0) -> Any:
    """Copy a node, with every reference but those to schemas replaced by its target. Raises Inexpressible."""
    if depth > 100:
        raise Inexpressible("it refers to itself outside of the schemas of components")
    if isinstance(node, list):
        return [followed(document, one, depth + 1) for one in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str) and not reference.startswith(SCHEMAS):
        if not reference.startswith("#/"):
            raise Inexpressible(f"it refers to {reference}, which is outside of the document")
        return followed(document, _target(document, node), depth + 1)
    copied: Node = {}
    for key, value in node.items():
        if key == "properties" and isinstance(value, dict):  # a property may have the name of a keyword
            copied[key] = {name: followed(document, one, depth + 1) for name, one in value.items()}
        elif not (key in LEFT_OUT or key.startswith("x-")):
            copied[key] = value if key in ("const", "default", "enum") else followed(document, value, depth + 1)
    return copied


def _target(document: Document, node: Node) -> Node:
    try:
        return document.resolved(node)
    except (KeyError, TypeError, AttributeError):
        raise Inexpressible(f"it refers to {node['$ref']}, which does not exist") from None


def nodes(node: Any) -> Iterator[Node]:
    """Yield each object of a document, except values (`enum`, `const`, `default`) and mappings of properties."""
    if isinstance(node, list):
        for one in node:
            yield from nodes(one)
    elif isinstance(node, dict):
        yield node
        for key, value in node.items():
            if key == "properties" and isinstance(value, dict):
                yield from nodes([*value.values()])
            elif key not in ("enum", "const", "default"):
                yield from nodes(value)


def references(node: Any) -> Iterator[str]:
    """Yield the names of the schemas that the node refers to, also by a discriminator."""
    for value in (value for one in nodes(node) for value in one.values()):
        if isinstance(value, str) and value.startswith(SCHEMAS):
            yield value.removeprefix(SCHEMAS).replace("~1", "/").replace("~0", "~")


def closure(document: Document, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the schemas that a node needs, directly or not. Raises Inexpressible."""
    found: set[str] = set()
    waiting = list(references(node))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            schema = followed(
                document, _target(document, {"$ref": SCHEMAS + name.replace("~", "~0").replace("/", "~1")})
            )
            waiting += references(schema)
            yield name, schema


def successes(responses: Node) -> list[str]:
    """Return the statuses of a success, single statuses first. `default` counts if the operation has no other."""
    found = sorted((status for status in responses if status.startswith("2")), key=lambda status: not status.isdigit())
    return found or [status for status in responses if status == "default"]


def refuse_keywords(where: str, node: Any) -> None:
    """Refuse a schema with a keyword that no model expresses. Raises Inexpressible."""
    if found := sorted({key for one in nodes(node) for key in one} & INEXPRESSIBLE):
        raise Inexpressible(f"{where} has {found[0]}, which a model cannot express")


def expressible(operation: Node, schemas: dict[str, Any]) -> None:
    """Refuse what no model expresses. Raises Inexpressible."""
    places = [("the operation", operation), *((f"the schema {name}", schema) for name, schema in schemas.items())]
    for where, node in places:
        refuse_keywords(where, node)
    for parameter in operation.get("parameters", ()):
        if "schema" not in parameter or parameter.get("style", "form") not in ("form", "simple"):
            raise Inexpressible(f"the parameter {parameter['name']} is not a plain value")
    for where, node in (("the request", operation.get("requestBody")), *operation.get("responses", {}).items()):
        types = list((node or {}).get("content", {}))
        is_answer = where in successes(operation.get("responses", {}))
        if types and (is_answer or where == "the request") and not any(map(JSON_TYPE.fullmatch, types)):
            raise Inexpressible(f"{f'the answer {where}' if is_answer else where} is {', '.join(types)}, and not JSON")
