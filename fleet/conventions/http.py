"""What the service's HTTP API promises: specs/openapi.json, which `make specs` writes from the code."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.judges.openapi_diff import breaks
from fleet.service import openapi
from fleet.service.openapi import SPEC, Document, Operation
from fleet.service.service import Service

VERSIONED = re.compile(r"/v[1-9][0-9]*(/.*)?")
KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
PLURAL = re.compile(r".*[^s]s|(.*-)?(children|criteria|data|feet|media|metadata|(wo)?men|mice|people|staff)")
SINGULAR = re.compile(r"(.*-)?(analysis|basis|bonus|bus|campus|corpus|status|virus)")

PROBLEM = "application/problem+json"
PROBLEM_SCHEMA = "#/components/schemas/Problem"


class _OfTheDocument(Convention):
    """A rule about the API document. Without a document there is nothing to say: http-document says that."""

    def check(self, service: Service) -> Iterator[Problem]:
        document = openapi.read(service)
        if document is not None:
            with _readable():
                yield from self.problems(document, service)

    @abstractmethod
    def problems(self, document: Document, service: Service) -> Iterator[Problem]: ...


@contextmanager
def _readable() -> Generator[None]:
    """What is not where OpenAPI has it makes the document malformed."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise FleetError(f"{SPEC} is not an OpenAPI document: {type(error).__name__} {error}") from None


def _at(operation: Operation, what: str) -> Problem:
    return Problem(SPEC, f"{operation}: {what}", operation.line)


class ApiDocument(Convention):
    """Callers, the catalogue and every check of the API read its document and not the code."""

    id = "http-document"
    remedy = "`make specs`, and commit specs/"

    def check(self, service: Service) -> Iterator[Problem]:
        document = openapi.read(service)
        if document is None:
            yield Problem(SPEC, "there is no document of the API")
        elif not document.version.startswith("3.1."):
            yield Problem(SPEC, f"it is of OpenAPI {document.version}, and the chassis writes 3.1")


class VersionedPaths(_OfTheDocument):
    """A path that names its version can get a successor beside it, while callers move over one by one."""

    id = "http-versioned-paths"
    remedy = 'begin the path with its version: APIRouter(prefix="/v1/…")'

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        for operation in document.operations:
            if not VERSIONED.fullmatch(operation.path):
                yield _at(operation, "the path does not begin with a version")


class PathNames(_OfTheDocument):
    """Paths that are all built alike can be guessed, and no caller has to look up how this service spells its own."""

    id = "http-path-names"
    remedy = "kebab-case for segments, a plural for what holds many, snake_case for what is in braces"

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        for operation in document.operations:
            version, *segments = operation.path.removeprefix("/").split("/")
            if not VERSIONED.fullmatch(f"/{version}"):
                segments.insert(0, version)
            for segment in segments:
                parameter = segment[1:-1] if segment.startswith("{") and segment.endswith("}") else None
                if parameter is None and not KEBAB.fullmatch(segment):
                    yield _at(operation, f"`{segment}` is not kebab-case")
                elif parameter is not None and not SNAKE.fullmatch(parameter):
                    yield _at(operation, f"the parameter `{parameter}` is not snake_case")
            many = segments[-1]
            if operation.path in document.collections and (SINGULAR.fullmatch(many) or not PLURAL.fullmatch(many)):
                yield _at(operation, f"`{many}` holds many, and is not a plural")


class OperationIds(_OfTheDocument):
    """Generated clients name their functions after the operation id."""

    id = "http-operation-ids"
    remedy = "give each route's function a name of its own, in snake_case: the chassis makes it the id"

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        times = Counter(operation.content.get("operationId") for operation in document.operations)
        for operation in document.operations:
            name = operation.content.get("operationId")
            if not name:
                yield _at(operation, "it has no operationId")
            elif times[name] > 1:
                yield _at(operation, f"the operationId `{name}` is used {times[name]} times")
            elif not SNAKE.fullmatch(name):
                yield _at(operation, f"the operationId `{name}` is not snake_case")


class Summaries(_OfTheDocument):
    """Who decides whether to call an operation has nothing to read but these two lines."""

    id = "http-summaries"
    remedy = "write a docstring for the route: the chassis makes it the description"

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        for operation in document.operations:
            missing = [name for name in ("summary", "description") if not str(operation.content.get(name, "")).strip()]
            if missing:
                yield _at(operation, f"it has no {' and no '.join(missing)}")


class Problems(_OfTheDocument):
    """Callers handle failures in one place if every service writes them alike, as RFC 9457 has it."""

    id = "http-problems"
    remedy = "raise an error of chassis.errors, and document it: responses=problems(InvoiceNotFound)"

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        for operation in document.operations:
            failures = {status: one for status, one in operation.responses.items() if status[0] in "45d"}
            if not any(status.startswith("4") for status in failures):
                yield _at(operation, "it documents no failure of the caller (4xx)")
            for status, response in failures.items():
                content = response.get("content", {})
                if content.keys() != {PROBLEM}:
                    found = ", ".join(content) or "nothing"
                    yield _at(operation, f"{status} answers {found} instead of {PROBLEM}")
                elif content[PROBLEM].get("schema") != {"$ref": PROBLEM_SCHEMA}:
                    yield _at(operation, f"{status} has another schema than the chassis' Problem")


class Pagination(_OfTheDocument):
    """A list without pages works until there are many, and then takes the service down."""

    id = "http-pagination"
    remedy = "take `cursor: Annotated[Cursor, Query()]` of chassis.http, and answer `items` and `next_cursor`"

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        for operation in document.operations:
            if operation.method == "get" and operation.path in document.collections:
                yield from (_at(operation, what) for what in _unpaged(operation, document))


def _unpaged(operation: Operation, document: Document) -> Iterator[str]:
    limit = operation.parameter("limit", "query")
    if limit is None:
        yield "it answers a list, and takes no `limit`"
    elif "maximum" not in document.resolved(limit.get("schema", {})):
        yield "its `limit` has no maximum"
    if operation.parameter("after", "query") is None:
        yield "it answers a list, and takes no `after` to go on from"
    page = document.answer(operation).get("properties", {})
    if missing := sorted({"items", "next_cursor"} - page.keys()):
        yield f"what it answers is no page: it has no `{'` and no `'.join(missing)}`"


class NoBreakingChange(_OfTheDocument):
    """Callers are deployed at other times, and nobody knows all of them."""

    id = "http-breaking"
    remedy = (
        "put it back, and offer the new shape beside it, under /v2 or in another field; an operation that nobody calls "
        "any more is deprecated in one release (deprecated=True) and removed in a later one"
    )

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        if service.base is None or service.base.tree.get(SPEC) == service.tree[SPEC]:
            return
        known = openapi.read(service.base)
        if known and known.version[:3] != document.version[:3] != "3.1":
            return  # http-document reports a document of a version that cannot be compared
        for one in breaks(known, document) if known else ():
            yield Problem(SPEC, one.what) if one.operation is None else _at(one.operation, one.what)
