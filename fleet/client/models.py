"""Write the Pydantic models of a neighbour: one class for each schema that its operations use."""

import ast
import json
import re
import warnings
from typing import Any

from fleet.client.uses import SCHEMAS, Inexpressible, closure, nodes
from fleet.service.openapi import Document, Node

TYPES = {
    *(
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "const",
        "discriminator",
        "enum",
        "format",
        "items",
        "nullable",
    ),
    *("oneOf", "properties", "required", "type"),
}
"""The keywords of a schema that models keep. Lengths and patterns are left out: the neighbour checks its requests itself, and a
reader does not refuse an answer for its length.

Keywords for the generator of models are left out too: with `customTypePath`, the neighbour could name a module to import.
"""

FORMATS = {"uuid": "UUID", "date": "date", "date-time": "datetime"}
IMPORTED_CLASSES = {"Any", "BaseModel", "ConfigDict", "Enum", "Field", "Literal", "Mapping", "RootModel", "UUID"}


def models(name: str, version: str, schemas: Node) -> str:
    from datamodel_code_generator import DataModelType, InputFileType, LiteralType, PythonVersion, generate

    if not schemas:
        return ""
    properties = (key for node in nodes([*schemas.values()]) for key in node.get("properties", ()))
    renamed = any(re.search(r"[^a-z0-9_]", key) for key in properties)
    content = {
        "openapi": version,
        "info": {"title": name, "version": ""},
        "paths": {},
        "components": {"schemas": schemas},
    }
    try:
        with warnings.catch_warnings(action="ignore"):
            made = generate(
                json.dumps(content),
                input_file_type=InputFileType.OpenAPI,
                output_model_type=DataModelType.PydanticV2BaseModel,
                target_python_version=PythonVersion.PY_311,
                enum_field_as_literal=LiteralType.One,
                use_specialized_enum=True,
                snake_case_field=renamed,
                allow_population_by_field_name=renamed,
                disable_timestamp=True,
                disable_future_imports=True,
                use_standard_collections=True,
                use_union_operator=True,
                formatters=[],
            )
        ast.parse(code := str(made))
    except Exception as error:  # the generator has no error class for schemas that it cannot express
        raise Inexpressible(f"no models can be made of {', '.join(sorted(schemas))}: {error}") from None
    return re.sub(r"(?m)^#.*\n", "", code)


def _bare(node: Any) -> Any:
    """Leave only what the types of a model depend on."""
    if isinstance(node, list):
        return [_bare(one) for one in node]
    if isinstance(node, str) and node.startswith(SCHEMAS):
        return SCHEMAS + class_name(node.removeprefix(SCHEMAS))
    if not isinstance(node, dict):
        return node
    bare = {}
    for key, value in node.items():
        if key == "properties" and isinstance(value, dict):
            bare[key] = {name: _bare(one) for name, one in value.items()}
        elif key == "discriminator" and isinstance(value, dict):
            bare[key] = {name: _mapping(one) for name, one in value.items()}
        elif key == "$ref" and not str(value).startswith(SCHEMAS):
            raise Inexpressible(f"it refers to {value}, which is not a schema of components")
        elif key == "format" and value not in FORMATS:
            continue  # Pydantic would check the values of other formats, and needs further packages for some formats
        elif key == "additionalProperties" and "properties" in node:
            if value is not False:
                # A type checker refuses the models that the generator writes for further fields of a certain type.
                bare[key] = True
        elif key in TYPES and not (key == "additionalProperties" and value is False):
            bare[key] = value if key in ("enum", "const") else _bare(value)
    return bare


def _mapping(value: Any) -> Any:
    """Name the classes of a discriminator's mapping; return any other value as it is."""
    return {name: _bare(one) for name, one in value.items()} if isinstance(value, dict) else value


def model(document: Document, schema: Node, name: str, schemas: Node) -> str:
    """Return the class of a body, and collect its schemas. A schema without a name gets that name. Raises Inexpressible."""
    if "enum" in document.resolved(schema):
        raise Inexpressible("a body is one value of an enumeration")
    for needed, node in closure(document, schema):
        _add(class_name(needed), node, schemas)
    reference = schema.get("$ref", "")
    if reference.startswith(SCHEMAS):
        return class_name(reference.removeprefix(SCHEMAS))
    _add(name, schema, schemas)
    return name


def _add(name: str, schema: Node, schemas: Node) -> None:
    """Add the schema of a class. Raises Inexpressible if another schema has the class already."""
    bare = _bare(schema)
    if schemas.setdefault(name, bare) != bare:
        raise Inexpressible(f"two schemas would be the class {name}")


def class_name(schema: str) -> str:
    """Return the name of a schema's class: `CustomerDetails` for `customer-details`."""
    name = "".join(part[:1].upper() + part[1:] for part in re.findall(r"[A-Za-z0-9]+", schema))
    name = f"{name}Model" if name in IMPORTED_CLASSES else name
    return name if name[:1].isalpha() else f"Model{name}"
