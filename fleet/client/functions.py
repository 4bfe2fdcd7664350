"""Write the functions of a neighbour: one async function for each operation, and the names of its errors."""

import re
import textwrap
from dataclasses import dataclass, field
from http import HTTPStatus

from fleet.client.models import FORMATS, model
from fleet.client.uses import JSON_TYPE, Inexpressible, snake, successes
from fleet.output import visible
from fleet.service.openapi import Document, Node, Operation

PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
PHRASES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""The reason phrases of statuses that differ between versions of Python's http.HTTPStatus."""
STATUS = re.compile(r"[1-5]([0-9][0-9]|XX|xx)|default")
TAKEN = {"body", "client", "response"}
IMPORTED = {"date", "datetime", "httpx2", "quote", "to_jsonable_python"}
"""Names that the module imports, and that an operation might also have."""


@dataclass
class _Parameters:
    """The parameters of an operation as code: arguments of the function, and what each argument fills in the request."""

    required: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    segments: dict[str, str] = field(default_factory=dict)
    """The arguments that fill the path, by the name of the parameter."""
    query: list[str] = field(default_factory=list)
    header: list[str] = field(default_factory=list)


def function(title: str, document: Document, operation: Operation, schemas: Node, has_policy: bool) -> str:
    """Write the function of an operation, and collect the schemas of its models. Raises Inexpressible."""
    if unknown := [status for status in operation.responses if not STATUS.fullmatch(status)]:
        raise Inexpressible(f"{unknown[0]!r} is not a status")
    name = snake(operation.content["operationId"])
    name += "_" if name in IMPORTED else ""
    camel = "".join(word.title() for word in name.split("_"))
    parameters = _parameters(document, operation, has_policy)
    options = [repr(operation.method.upper()), _path(operation.path, parameters.segments)]
    options += [f"params=_given({{{', '.join(parameters.query)}}})"] if parameters.query else []
    options += [f"headers=_texts({{{', '.join(parameters.header)}}})"] if parameters.header else []
    if body := _json(operation.body):
        model_ = model(document, body, f"{camel}Body", schemas)
        needs_body = operation.body is not None and operation.body.get("required")
        parameters.required.append(f"body: {model_}" if needs_body else f"body: {model_} | None = None")
        dumped = 'body.model_dump(mode="json", by_alias=True, exclude_unset=True)'
        options.append(f"json={dumped}" if needs_body else f"json=None if body is None else {dumped}")
    returned, reads = _answers(document, operation, camel, schemas)
    call = "client.request("
    if has_policy:
        parameters.optional.append("fallback: _F | None = None")
        returned.append("_F")
        call = "_neighbours.call(client, "
        options.append("fallback=fallback")
        reads = f"    if not isinstance(response, httpx2.Response):\n        return response\n{reads}"
    keywords = ["*", *parameters.optional] if parameters.optional else []
    arguments = ", ".join(["client: httpx2.AsyncClient", *parameters.required, *keywords])
    return (
        f"async def {name}({arguments}) -> {' | '.join(dict.fromkeys(returned))}:\n"
        f'    """{_docstring(title, operation, has_policy)}"""\n    response = await {call}{", ".join(options)})\n{reads}'
        f"    raise _ERRORS.get(response.status_code, {title}Error)(response)\n"
    )


def _parameters(document: Document, operation: Operation, has_policy: bool) -> _Parameters:
    """Write the arguments for the parameters of an operation. Raises Inexpressible."""
    found = _Parameters()
    taken = TAKEN | {"fallback"} if has_policy else set(TAKEN)
    for parameter in operation.parameters:
        name, place = parameter["name"], parameter["in"]
        argument = snake(name)
        argument += f"_{place}" if argument in taken else ""
        taken.add(argument)
        type_ = _type(document, parameter["schema"], name)
        if place == "path":
            found.required.append(f"{argument}: {type_}")
            found.segments[name] = argument
        elif place in ("query", "header"):
            is_key = has_policy and place == "header" and name.lower() == "idempotency-key"
            value = f"{argument} or _neighbours.idempotency_key()" if is_key else argument
            (found.query if place == "query" else found.header).append(f"{name!r}: {value}")
            is_optional = not parameter.get("required")
            type_ = f"{type_.removesuffix(' | None')} | None = None" if is_optional else type_
            found.optional.append(f"{argument}: {type_}")
        else:
            raise Inexpressible(f"the parameter {name} is in a {place}")
    return found


def _answers(document: Document, operation: Operation, camel: str, schemas: Node) -> tuple[list[str], str]:
    """Return the types of the answers that are no errors, and the code that reads the answers. Raises Inexpressible."""
    returned, reads = [], ""
    for status in successes(operation.responses):
        node = _json(operation.responses[status])
        answer = f"{camel}Answer{'' if status == '200' else status[0].upper() + status[1:]}"
        returned.append(model(document, node, answer, schemas) if node else "None")
        test = f"response.status_code == {status}" if status.isdigit() else "response.is_success"
        read = f"{returned[-1]}.model_validate_json(response.content)" if node else "None"
        reads += f"    if {test}:\n        return {read}\n"
    return returned or ["None"], reads


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
    failures = [
        error_class(title, int(status)) for status in operation.responses if status.isdigit() and int(status) >= 300
    ]
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


def error_class(title: str, status: int) -> str:
    try:
        phrase = PHRASES.get(status) or HTTPStatus(status).phrase
    except ValueError:
        phrase = f"Status {status}"
    return title + "".join(re.findall(r"[A-Za-z0-9]+", phrase.replace("'", "").title()))
