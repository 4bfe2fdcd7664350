"""Write the module of a neighbour: Pydantic models, errors, and one async function for each operation."""

import ast
import hashlib
import json
import re
import subprocess
import textwrap
import warnings
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fleet.client.uses import JSON_TYPE, MALFORMED, SCHEMAS, Inexpressible, closure, module_of, nodes, snake, successes
from fleet.errors import FleetError
from fleet.judges.tools import program
from fleet.output import visible
from fleet.service.openapi import Document, Node, Operation

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
PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
FORMATS = {"uuid": "UUID", "date": "date", "date-time": "datetime"}

PHRASES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""The reason phrases of statuses that differ between versions of Python's http.HTTPStatus."""
STATUS = re.compile(r"[1-5]([0-9][0-9]|XX|xx)|default")
TAKEN = {"body", "client", "response"}
IMPORTED = {"date", "datetime", "httpx2", "quote", "to_jsonable_python"}
"""Names that the module imports, and that an operation might also have."""
IMPORTED_CLASSES = {"Any", "BaseModel", "ConfigDict", "Enum", "Field", "Literal", "Mapping", "RootModel", "UUID"}

MARK = "# Written by `fleet client`. Digests of specs/uses and of this code: "
"""The start of the line with the digests, which the gate specs-check of a service compares too."""
HEAD = '''"""The operations of {name} that this service calls, and their models.

`fleet client {name}` writes this module again after a change of specs/uses/{name}.json. {maker} makes
the client that each function takes.
"""
'''
IMPORTS = """
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

import httpx2
from pydantic_core import to_jsonable_python
"""
POLICY = """
from typing import TypeVar

from chassis import neighbours as _neighbours
"""
"""Further imports in a service with the part `neighbours` of the chassis, whose calls have a policy."""
FALLBACK = '_F = TypeVar("_F", bound=_neighbours.Fallback[Any])\n'
ERRORS = '''
class {title}Error(Exception):
    """{name} gave another answer than the operation returns. `problem` is the body, and `code` the code in the body."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(f"{{response.request.method}} {{response.request.url.path}} answered {{response.status_code}}")
        self.status = response.status_code
        try:
            body = response.json()
        except ValueError:
            body = None
        self.problem: dict[str, Any] = body if isinstance(body, dict) else {{}}
        self.code = str(self.problem.get("code", ""))
'''
HELPERS = """
def _given(values: Mapping[str, object]) -> dict[str, Any]:
    return {name: to_jsonable_python(value) for name, value in values.items() if value is not None}


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(value) for name, value in _given(values).items()}


def _text(value: object) -> str:
    plain = to_jsonable_python(value)
    return str(plain).lower() if isinstance(plain, bool) else str(plain)


def _segment(value: object) -> str:
    return quote(_text(value), safe="")
"""


def write(name: str, uses: Node, config: Path, *, has_policy: bool = False) -> str:
    """Write the module for a document of uses, by the formatter's configuration. Raises FleetError.

    With a policy, the functions raise NeighbourUnavailable without an answer, or return their fall-back value.
    """
    try:
        code = formatted(compose(name, uses, has_policy=has_policy), config)
    except (Inexpressible, *MALFORMED) as reason:
        raise FleetError(f"specs/uses/{name}.json: {reason}") from None
    digests = f"{digest(json.dumps(uses, ensure_ascii=False))} {digest(code)}"
    maker = f'`settings.client_for("{name}")`' if has_policy else "`chassis.client.service_client`"
    return f"{HEAD.format(name=name, maker=maker)}\n{MARK}{digests}\n\n{code}"


def compose(name: str, uses: Node, *, has_policy: bool = False) -> str:
    """Write the code without its head and without a format. Raises Inexpressible."""
    document = Document(json.loads(json.dumps(uses)))
    title = "".join(word.title() for word in module_of(name).split("_"))
    schemas: Node = {}
    functions = [_function(title, document, operation, schemas, has_policy) for operation in document.operations]
    failures = {int(status) for one in document.operations for status in one.responses if status.isdigit()}
    failures = {status: _error(title, status) for status in sorted(failures) if status >= 300}
    errors = [*([FALLBACK] if has_policy else []), ERRORS.format(name=name, title=title)]
    errors += [f'class {error}({title}Error):\n    """Status {status}."""\n' for status, error in failures.items()]
    table = "".join(f"    {status}: {error},\n" for status, error in failures.items())
    errors.append(f"_ERRORS: dict[int, type[{title}Error]] = {{\n{table}}}\n")
    imports = IMPORTS + POLICY if has_policy else IMPORTS
    code = "\n\n".join([imports, _models(name, document.version, schemas), *errors, *functions, HELPERS])
    _refuse_clashes(code, schemas)
    return code


def digest(text: str) -> str:
    """Return a digest that line breaks and indentation do not change."""
    return hashlib.sha256(re.sub(r"[\s,()]", "", text).encode(errors="replace")).hexdigest()[:16]


def is_untouched(text: str) -> bool:
    """Return whether a file has the code that fleet wrote into it."""
    digests, _, body = text.partition(MARK)[2].partition("\n")
    return digests[17:] == digest(body)


def _refuse_clashes(code: str, schemas: Node) -> None:
    """Refuse code in which two things have one name. Raises Inexpressible."""
    try:
        compile(code, "neighbour.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise Inexpressible(f"its code would not be Python: {error.msg}") from None
    parsed = ast.parse(code).body
    defined = [one.name for one in parsed if isinstance(one, ast.ClassDef | ast.AsyncFunctionDef)]
    imported = [alias.asname or alias.name for one in parsed if isinstance(one, ast.ImportFrom) for alias in one.names]
    if clashing := sorted(name for name, times in Counter([*defined, *set(imported)]).items() if times > 1):
        raise Inexpressible(f"the module would have two meanings of {clashing[0]}")
    functions = [one for one in parsed if isinstance(one, ast.AsyncFunctionDef)]
    used = {node.id for one in functions for node in ast.walk(one) if isinstance(node, ast.Name)} & schemas.keys()
    # The generator calls a schema StatusModel if a field `status` without a named schema is the class Status already.
    renamed = [name for name in used if f"{name}Model" in {*defined} - schemas.keys()]
    if others := sorted((schemas.keys() - {*defined}) | {*renamed}):
        raise Inexpressible(f"the generator of models gives {others[0]} another name")


def _models(name: str, version: str, schemas: Node) -> str:
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
            continue  # other formats would make Pydantic check values, some of them only with further packages
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


def _function(title: str, document: Document, operation: Operation, schemas: Node, has_policy: bool) -> str:
    """Write the function of an operation, and collect the schemas of its models. Raises Inexpressible."""
    if unknown := [status for status in operation.responses if not STATUS.fullmatch(status)]:
        raise Inexpressible(f"{unknown[0]!r} is not a status")
    name = snake(operation.content["operationId"])
    name += "_" if name in IMPORTED else ""
    camel = "".join(word.title() for word in name.split("_"))
    required, optional, segments, places = [], [], {}, {"query": [], "header": []}
    for parameter in operation.parameters:
        argument = snake(parameter["name"])
        if (
            argument in TAKEN
            or (has_policy and argument == "fallback")
            or any(one.startswith(f"{argument}:") for one in (*required, *optional))
        ):
            argument += f"_{parameter['in']}"
        type_ = _type(document, parameter["schema"], parameter["name"])
        if parameter["in"] == "path":
            required.append(f"{argument}: {type_}")
            segments[parameter["name"]] = argument
        elif parameter["in"] in places:
            is_key = has_policy and parameter["in"] == "header" and parameter["name"].lower() == "idempotency-key"
            value = f"{argument} or _neighbours.idempotency_key()" if is_key else argument
            places[parameter["in"]].append(f"{parameter['name']!r}: {value}")
            is_optional = not parameter.get("required")
            type_ = f"{type_.removesuffix(' | None')} | None = None" if is_optional else type_
            optional.append(f"{argument}: {type_}")
        else:
            raise Inexpressible(f"the parameter {parameter['name']} is in a {parameter['in']}")
    options = [repr(operation.method.upper()), _path(operation.path, segments)]
    options += [f"params=_given({{{', '.join(places['query'])}}})"] if places["query"] else []
    options += [f"headers=_texts({{{', '.join(places['header'])}}})"] if places["header"] else []
    if body := _json(operation.body):
        model = _model(document, body, f"{camel}Body", schemas)
        needs_body = operation.body is not None and operation.body.get("required")
        required.append(f"body: {model}" if needs_body else f"body: {model} | None = None")
        dumped = 'body.model_dump(mode="json", by_alias=True, exclude_unset=True)'
        options.append(f"json={dumped}" if needs_body else f"json=None if body is None else {dumped}")
    optional += ["fallback: _F | None = None"] if has_policy else []
    arguments = ", ".join(["client: httpx2.AsyncClient", *required, *(["*", *optional] if optional else [])])
    returned, reads = [], ""
    for status in successes(operation.responses):
        node = _json(operation.responses[status])
        answer = f"{camel}Answer{'' if status == '200' else status[0].upper() + status[1:]}"
        returned.append(_model(document, node, answer, schemas) if node else "None")
        test = f"response.status_code == {status}" if status.isdigit() else "response.is_success"
        read = f"{returned[-1]}.model_validate_json(response.content)" if node else "None"
        reads += f"    if {test}:\n        return {read}\n"
    returned = [*(returned or ["None"]), *(["_F"] if has_policy else [])]
    call = "client.request("
    if has_policy:
        call = "_neighbours.call(client, "
        options.append("fallback=fallback")
        reads = f"    if not isinstance(response, httpx2.Response):\n        return response\n{reads}"
    return (
        f"async def {name}({arguments}) -> {' | '.join(dict.fromkeys(returned))}:\n"
        f'    """{_docstring(title, operation, has_policy)}"""\n    response = await {call}{", ".join(options)})\n{reads}'
        f"    raise _ERRORS.get(response.status_code, {title}Error)(response)\n"
    )


def _path(path: str, segments: dict[str, str]) -> str:
    """Write the path with its parameters. Raises Inexpressible for a path that is no plain text."""
    parts = re.split(r"\{([^{}]*)\}", path)
    if any(not re.fullmatch(r"[\w/.~:@!$&()*+,;=%-]*", part) for part in parts[::2]):
        raise Inexpressible("the path has characters that a URL cannot have")
    if undeclared := [name for name in parts[1::2] if name not in segments]:
        raise Inexpressible(f"the path has the parameter {undeclared[0]}, which the operation does not declare")
    parts[1::2] = [f"{{_segment({segments[name]})}}" for name in parts[1::2]]
    return f'f"{"".join(parts)}"' if len(parts) > 1 else repr(path)


def _docstring(title: str, operation: Operation, has_policy: bool) -> str:
    failures = [_error(title, int(status)) for status in operation.responses if status.isdigit() and int(status) >= 300]
    unanswered = (
        "NeighbourUnavailable without an answer and a fallback" if has_policy else "httpx2.HTTPError without an answer"
    )
    raises = f"Raises {', '.join([*failures, f'{title}Error'])} for another status, and {unanswered}."
    described = str(operation.content.get("description") or operation.content.get("summary") or operation).strip()
    lines = textwrap.wrap(re.sub(r'[\\"]', "'", visible(described.partition("\n")[0])), 110)[:1]
    return "\n".join([*lines, "", *(f"    {line}" for line in textwrap.wrap(raises, 110)), "    "])


def _json(body: Node | None) -> Node | None:
    """Return the schema of a body that is JSON, if it has one."""
    content = (body or {}).get("content", {})
    return next((one["schema"] for kind, one in content.items() if JSON_TYPE.fullmatch(kind) and "schema" in one), None)


def _model(document: Document, schema: Node, name: str, schemas: Node) -> str:
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


def _type(document: Document, schema: Node, where: str) -> str:
    """Return the type of a parameter. Raises Inexpressible."""
    schema = document.resolved(schema)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(_type(document, one, where) for one in choices))
    if "enum" in schema:
        if not all(isinstance(one, str | int | None) for one in schema["enum"]):
            raise Inexpressible(f"the parameter {where} has values that are neither text nor integers")
        return f"Literal[{', '.join(repr(one) for one in schema['enum'])}]"
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        return " | ".join(_type(document, {**schema, "type": one}, where) for one in kind)
    if kind == "null":
        return "None"
    if kind == "array":
        return f"list[{_type(document, schema.get('items', {}), where)}]"
    if kind not in PLAIN:
        raise Inexpressible(f"the parameter {where} is of type {kind}, and not a plain value")
    return FORMATS.get(schema.get("format", ""), PLAIN[kind]) if kind == "string" else PLAIN[kind]


def _error(title: str, status: int) -> str:
    try:
        phrase = PHRASES.get(status) or HTTPStatus(status).phrase
    except ValueError:
        phrase = f"Status {status}"
    return title + "".join(re.findall(r"[A-Za-z0-9]+", phrase.replace("'", "").title()))


def formatted(code: str, config: Path, file: str = "neighbour.py", package: str = "") -> str:
    """Format code by the service's ruff.toml, without imports that nothing uses. Raises FleetError."""
    options = ["--config", str(config)] if config.is_file() else ["--isolated", "--line-length", "120"]
    # The modules that are imported are perhaps not written yet, so Ruff cannot see that they are of the service.
    imports = ["--config", f"lint.isort.known-first-party = {json.dumps([package])}"] if package else []
    for command in (
        [
            "check",
            "--fix-only",
            "--quiet",
            "--unsafe-fixes",
            "--extend-select",
            "F401,I,UP,E,W",
            "--fixable",
            "F401,I,UP,W",
            *imports,
        ],
        ["format", "--quiet"],
    ):
        ruff = [program("ruff"), *command, "--no-cache", *options, "--stdin-filename", file, "-"]
        done = subprocess.run(ruff, input=code, capture_output=True, text=True)
        if done.returncode != 0:
            raise FleetError(f"the code of {file} cannot be formatted: {done.stderr.strip()[-500:]}")
        code = done.stdout
    return code
