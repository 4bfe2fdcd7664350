"""A neighbour for tests, which refuses requests and answers that do not fit the committed specs/uses of the service."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx2
from jsonschema import Draft202012Validator, FormatChecker
from pydantic import BaseModel

USES = Path("specs/uses")
SAMPLES = {"uuid": "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d", "date": "2027-01-31", "date-time": "2027-01-31T12:00:00Z"}
PATTERNED = ("EUR", "0")
"""Texts for the patterns that a slipway service has in its document: a currency, a decimal number."""

Node = dict[str, Any]


class Unfit(AssertionError):
    """A test sends a request, or gives an answer, that does not fit specs/uses."""


@dataclass(frozen=True)
class Slow:
    """An answer after some seconds."""

    seconds: float
    answer: Any = None


def neighbour(name: str, always: Any = None, /, **answers: Any) -> "Neighbour":
    """Make the transport of a client for the service that specs/uses/<name>.json describes.

    `answers` has an answer for the name of an operation, and `always` is the answer of all others. An answer is the content of
    a success, a status, a response, an exception such as httpx2.ReadTimeout, one of these in `Slow(seconds, answer)`, or an
    iterator of answers for one call after another. Without an answer, the transport makes one by the schema.
    """
    return Neighbour(name, always, answers)


class Neighbour(httpx2.AsyncBaseTransport):
    """The transport that `neighbour` makes. `requests` are the requests that fitted, in their order."""

    def __init__(self, name: str, always: Any, answers: Node) -> None:
        self.requests: list[httpx2.Request] = []
        self._file = USES / f"{name}.json"
        if not self._file.is_file():
            raise Unfit(f"{self._file.absolute()} does not exist: write it by `fleet client {name} OPERATION`")
        self._document: Node = json.loads(self._file.read_text())
        self._always, self._answers = always, {_bare(key): answer for key, answer in answers.items()}
        known = [one["operationId"] for _, _, one in self._operations()]
        if unknown := [key for key in answers if _bare(key) not in map(_bare, known)]:
            raise Unfit(f"{self._file} has no operation {unknown[0]}; there are {', '.join(known)}")

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        operation, in_path = self._find(request)
        name = operation["operationId"]
        self._check_request(f"the request of {name}", request, operation, in_path)
        self.requests.append(request)
        answer = self._answers.get(_bare(name), self._always)
        answer = (
            next(answer, Unfit(f"the test has no answer for one more call of {name}"))
            if isinstance(answer, Iterator)
            else answer
        )
        if isinstance(answer, Slow):
            await asyncio.sleep(answer.seconds)
            answer = answer.answer
        if isinstance(answer, type) and issubclass(answer, Exception):
            answer = answer(f"{name} fails in this test")
        if isinstance(answer, Exception):
            raise answer
        response = answer if isinstance(answer, httpx2.Response) else self._response(operation["responses"], answer)
        self._check_response(f"the answer of {name}", response, operation["responses"])
        return response

    def _operations(self) -> Iterator[tuple[str, str, Node]]:
        for path, item in self._document["paths"].items():
            yield from ((method, path, one) for method, one in item.items() if "operationId" in one)

    def _find(self, request: httpx2.Request) -> tuple[Node, dict[str, str]]:
        """Return the operation, and the values of the parameters in the path."""
        path = request.url.raw_path.partition(b"?")[0].decode()
        for method, template, operation in self._operations():
            literal, names = re.split(r"{[^{}]*}", template), re.findall(r"{([^{}]*)}", template)
            found = re.fullmatch("([^/]+)".join(map(re.escape, literal)), path)
            if found and request.method.lower() == method:
                return operation, dict(zip(names, map(unquote, found.groups()), strict=True))
        known = ", ".join(f"{method.upper()} {template}" for method, template, _ in self._operations())
        raise Unfit(f"{self._file} has no operation {request.method} {path}; there are {known}")

    def _check_request(self, where: str, request: httpx2.Request, operation: Node, in_path: dict[str, str]) -> None:
        query: dict[str, list[str]] = {}
        for key, value in parse_qsl(request.url.query.decode(), keep_blank_values=True):
            query.setdefault(key, []).append(value)
        given: dict[str, Any] = {"path": in_path, "query": query, "header": request.headers}
        declared = operation.get("parameters", [])
        if unknown := query.keys() - {one["name"] for one in declared if one["in"] == "query"}:
            raise Unfit(f"{where} has the parameter {min(unknown)}, which {self._file} does not have")
        for one in declared:
            if one["name"] in given.get(one["in"], {}):
                self._check(f"{where}: {one['name']}", _readings(given[one["in"]][one["name"]]), one["schema"])
            elif one.get("required"):
                raise Unfit(f"{where} lacks the {one['in']} parameter {one['name']}")
        body = operation.get("requestBody", {})
        if request.content or body.get("required"):
            self._check_body(where, request, body)

    def _response(self, responses: Node, answer: Any) -> httpx2.Response:
        """Make a response of a status, or of the content of a success."""
        successes = [int(status) for status in sorted(responses) if status.isdigit() and status.startswith("2")]
        status = answer if type(answer) is int else next(iter(successes), 200)
        media_types = (_described(responses, status) or {}).get("content", {})
        for media_type, content in media_types.items():
            if isinstance(answer, BaseModel):
                answer = answer.model_dump(mode="json", by_alias=True)
            value = self._sample(content["schema"]) if answer is None or type(answer) is int else answer
            return httpx2.Response(status, content=json.dumps(value), headers={"Content-Type": media_type})
        return httpx2.Response(status)

    def _check_response(self, where: str, response: httpx2.Response, responses: Node) -> None:
        described = _described(responses, response.status_code)
        if described is not None and (response.content or "content" in described):
            self._check_body(where, response, described)
        elif described is None and response.status_code < 500 and response.status_code != 429:
            raise Unfit(f"{where} has the status {response.status_code}, which {self._file} does not have")

    def _check_body(self, where: str, message: httpx2.Request | httpx2.Response, described: Node) -> None:
        media_type, media_types = (
            message.headers.get("Content-Type", "").partition(";")[0],
            described.get("content", {}),
        )
        if media_type not in media_types:
            wanted = " or ".join(media_types) or "no body"
            raise Unfit(f"{where} has a body of {media_type or 'no type'}, and {self._file} has {wanted}")
        self._check(where, [json.loads(message.content)], media_types[media_type].get("schema", {}))

    def _check(self, where: str, readings: list[Any], schema: Node) -> None:
        """Check that one of the readings of a value fits the schema. Raises Unfit."""
        # References begin at the root of the document.
        whole = {"allOf": [schema], "components": self._document.get("components", {})}
        validator = Draft202012Validator(whole, format_checker=FormatChecker())
        errors = [next(iter(validator.iter_errors(value)), None) for value in readings]
        if None not in errors and (error := errors[0]):
            field = ".".join(map(str, error.absolute_path))
            raise Unfit(f"{where} does not fit {self._file}: {f'{field}: ' if field else ''}{error.message[:500]}")

    def _sample(self, schema: Node) -> Any:
        """Make a value by the schema. A value that still does not fit, for example a pattern, is refused like any answer."""
        while "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for keyword in ("allOf", "anyOf", "oneOf"):
            if keyword in schema:
                return self._sample(schema[keyword][0])
        if values := [schema["const"]] if "const" in schema else schema.get("enum"):
            return values[0]
        kinds = schema.get("type", "object")
        match kinds[0] if isinstance(kinds, list) else kinds:
            case "object":
                return {name: self._sample(one) for name, one in schema.get("properties", {}).items()}
            case "string":
                usual = SAMPLES.get(schema.get("format", ""), "x" * max(1, schema.get("minLength", 1)))
                return next((each for each in (usual, *PATTERNED) if re.search(schema.get("pattern", ""), each)), usual)
            case "integer" | "number":
                return schema.get("minimum", 0)
            case kind:
                return {"array": [], "boolean": True, "null": None}[kind]


def _described(responses: Node, status: int) -> Node | None:
    """Return what the document has for a status: its own entry, the entry of its range, or the default."""
    return next((responses[one] for one in (str(status), f"{status // 100}XX", "default") if one in responses), None)


def _bare(name: str) -> str:
    """Return a form that is the same for the id of an operation (getCustomer) and its function (get_customer)."""
    return re.sub(r"[\W_]", "", name).lower()


def _readings(given: str | list[str]) -> list[Any]:
    """Return the values that the text of a parameter can stand for: a text, a number, a truth value, or a list of these."""
    texts = [given] if isinstance(given, str) else given
    read: list[Any] = []
    for text in texts:
        read.append(text)
        with suppress(ValueError):
            read[-1] = json.loads(text)
    return [texts[0], read[0], texts, read] if len(texts) == 1 else [texts, read]
