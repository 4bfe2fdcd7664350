"""The HTTP API, checked in specs/openapi.json, which `make specs` writes from the code."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.judges.openapi_diff import find_breaking_changes
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


class _DocumentConvention(Convention):
    """A rule about the API document. http-document reports a missing document."""

    def check(self, service: Service) -> Iterator[Problem]:
        document = openapi.read(service)
        if document is not None:
            with _readable():
                yield from self.problems(document, service)

    @abstractmethod
    def problems(self, document: Document, service: Service) -> Iterator[Problem]: ...


@contextmanager
def _readable() -> Generator[None]:
    """Report a document without the structure of OpenAPI as malformed."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise FleetError(f"{SPEC} is not an OpenAPI document: {type(error).__name__} {error}") from None


def _at(operation: Operation, what: str) -> Problem:
    return Problem(SPEC, f"{operation}: {what}", operation.line)


class ApiDocument(Convention):
    """Callers, the catalogue and the checks read the document of an API and not its code."""

    id = "http-document"
    remedy = "`make specs`, and commit specs/"

    def check(self, service: Service) -> Iterator[Problem]:
        document = openapi.read(service)
        if document is None:
            yield Problem(SPEC, "there is no document of the API")
        elif not document.version.startswith("3.1."):
            yield Problem(
                SPEC, f"the document has OpenAPI version {document.version}, and the chassis writes version 3.1"
            )


class VersionedPaths(_DocumentConvention):
    """If paths name their version, the next version can be served in parallel while callers migrate one by one."""

    id = "http-versioned-paths"
    remedy = 'begin the path with its version: APIRouter(prefix="/v1/…")'

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        for operation in document.operations:
            if not VERSIONED.fullmatch(operation.path):
                yield _at(operation, "the path does not begin with a version")


class PathNames(_DocumentConvention):
    """Callers can guess paths that all services spell alike."""

    id = "http-path-names"
    remedy = (
        "use kebab-case for segments, a plural for collections, and snake_case for parameters; search a collection "
        "under /v1/invoices/search"
    )

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
            many = segments[-2] if _searches(segments) else segments[-1]
            if operation.path in document.collections and (SINGULAR.fullmatch(many) or not PLURAL.fullmatch(many)):
                yield _at(operation, f"`{many}` is a collection, and its name is not a plural")


def _searches(segments: list[str]) -> bool:
    """Return whether the path searches a collection: /v1/invoices/search, whose name is that of the collection."""
    return segments[-1] == "search" and len(segments) > 1


class OperationIds(_DocumentConvention):
    """Generated clients name their functions after the operation id."""

    id = "http-operation-ids"
    remedy = "give each route's function a unique name in snake_case, which becomes the operation id"

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        times = Counter(operation.content.get("operationId") for operation in document.operations)
        for operation in document.operations:
            name = operation.content.get("operationId")
            if not name:
                yield _at(operation, "there is no operationId")
            elif times[name] > 1:
                yield _at(operation, f"the operationId `{name}` is used {times[name]} times")
            elif not SNAKE.fullmatch(name):
                yield _at(operation, f"the operationId `{name}` is not snake_case")


class Summaries(_DocumentConvention):
    """Summary and description are all that the author of a caller reads about an operation."""

    id = "http-summaries"
    remedy = "write a docstring for the route, which becomes the description"

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        for operation in document.operations:
            missing = [name for name in ("summary", "description") if not str(operation.content.get(name, "")).strip()]
            if missing:
                yield _at(operation, f"there is no {' and no '.join(missing)}")


class Problems(_DocumentConvention):
    """Callers can handle failures in one place if all services report them in the format of RFC 9457."""

    id = "http-problems"
    remedy = "raise an error of chassis.errors, and document the error: responses=problems(InvoiceNotFound)"

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        for operation in document.operations:
            failures = {status: one for status, one in operation.responses.items() if status[0] in "45d"}
            if not any(status.startswith("4") for status in failures):
                yield _at(operation, "no failure of the caller (4xx) is documented")
            for status, response in failures.items():
                content = response.get("content", {})
                if content.keys() != {PROBLEM}:
                    found = ", ".join(content) or "nothing"
                    yield _at(operation, f"{status} answers {found} instead of {PROBLEM}")
                elif content[PROBLEM].get("schema") != {"$ref": PROBLEM_SCHEMA}:
                    yield _at(operation, f"{status} has another schema than the chassis' Problem")


class Security(_DocumentConvention):
    """An operation that demands no scopes is open to everybody who has a token, or to everybody, and nobody notices."""

    id = "http-security"
    remedy = (
        'put @scopes("…") or @public("…") of chassis.identity above the route\'s function, and auth=Oidc() into the Service '
        "of main.py; then `make specs`"
    )

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        if service.answers.values.get("auth") != "oidc":
            return
        for operation in document.operations:
            ways = operation.content.get("security", document.content.get("security", []))
            if not ways and not str(operation.content.get("x-public", "")).strip():
                yield _at(operation, "names no scopes, and no reason why everybody may call it")
            elif any(not way or not all(way.values()) for way in ways):
                yield _at(operation, "can be called without any scope")


class Pagination(_DocumentConvention):
    """A list without pages works until it is long, and then makes the service fail."""

    id = "http-pagination"
    remedy = (
        "accept `cursor: Annotated[Cursor, Query()]` of chassis.http (by id) or a ListCursor of chassis.listing (by another "
        "column), and answer `items` and `next_cursor`"
    )

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        for operation in document.operations:
            if operation.method == "get" and operation.path in document.collections:
                yield from (_at(operation, what) for what in _unpaged(operation, document))


def _unpaged(operation: Operation, document: Document) -> Iterator[str]:
    limit = operation.parameter("limit", "query")
    if limit is None:
        yield "the operation answers a list, and has no parameter `limit`"
    elif "maximum" not in document.resolved(limit.get("schema", {})):
        yield "the parameter `limit` has no maximum"
    if operation.parameter("after", "query") is None:
        yield "the operation answers a list, and has no parameter `after` to continue from"
    page = document.answer(operation).get("properties", {})
    if missing := sorted({"items", "next_cursor"} - page.keys()):
        yield f"the answer is not a page: it has no `{'` and no `'.join(missing)}`"


class NoBreakingChange(_DocumentConvention):
    """Callers are deployed at other times than the service, and nobody knows all callers."""

    id = "http-breaking"
    remedy = (
        "undo the change, and offer the new shape in addition, under /v2 or in another field; deprecate an operation that "
        "nobody calls any more in one release (deprecated=True), and remove it in a later release"
    )

    def problems(self, document: Document, service: Service) -> Iterator[Problem]:
        if service.base is None or service.base.tree.get(SPEC) == service.tree[SPEC]:
            return
        known = openapi.read(service.base)
        if known and known.version[:3] != document.version[:3] != "3.1":
            return  # http-document reports a document of a version that cannot be compared
        for one in find_breaking_changes(known, document) if known else ():
            yield Problem(SPEC, one.what) if one.operation is None else _at(one.operation, one.what)
