"""The tools of a route: transactions and reads, the If-Match and ETag of a resource, and pages."""

import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from functools import lru_cache, wraps
from typing import Annotated, Any, TypeVar
from urllib.parse import quote
from uuid import UUID

from fastapi import Depends, Header, Request, Response
from fastapi.datastructures import Default, DefaultPlaceholder
from fastapi.routing import APIRoute
from pydantic import Field, StringConstraints, WithJsonSchema
from uuid_utils.compat import uuid7

from chassis.database import Database, UnitOfWork
from chassis.database.current_database import current_database
from chassis.fields import Identifier, RequestModel

Served = TypeVar("Served")


# Plain functions, not dependencies: resolving a dependency takes FastAPI two thirds of the time of an SQL statement.
def reader() -> Database:
    """Return the database, for a route that only reads. Each statement runs by itself, without a transaction."""
    try:
        return current_database.get()
    except LookupError:
        raise RuntimeError("no request is being handled: call reader() and transaction() only inside a route") from None


def transaction() -> AbstractAsyncContextManager[UnitOfWork]:
    """Open a transaction for the changes of a route: `async with transaction() as uow:`.

    The end of the block commits, and an exception rolls back. The commit precedes the answer, so no client sees 2xx for
    a change that is lost. Raises chassis.database.DatabaseUnavailable, which becomes a 503.
    """
    return reader().unit_of_work()


def utc_now() -> datetime:
    """Return the current time, which a route passes to its use case."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """Make a UUIDv7 (RFC 9562). UUIDv7s sort by the time of their making, and lists are paged in that order."""
    return uuid7()


_quote = lru_cache(maxsize=64)(quote)  # a cache, because most POSTs have one of a few paths

_ETAG = '"[1-9][0-9]{0,17}"'


# The header is required, so that no client overwrites a change by accident. Without the header the answer is 428 (RFC
# 6585).
async def _expected_version(
    if_match: Annotated[
        str,
        StringConstraints(strip_whitespace=True),  # the server keeps the spaces behind a header's value
        Header(
            alias="If-Match",
            description='The ETag of the copy that the change is based on, such as `"3"`; `*` to change any version.',
            # A proxy that compresses (nginx, CDNs) makes the ETag weak: the bytes differ, but the version is the same.
            pattern=rf"^(\*|(W/)?{_ETAG})$",
            examples=["*"],
        ),
    ],
) -> int | None:
    return None if if_match == "*" else int(if_match.removeprefix("W/").strip('"'))


IfMatch = Annotated[int | None, Depends(_expected_version)]
"""The version that the caller's change is based on; None if the caller accepts any version (`If-Match: *`)."""


_HEADERS: dict[str, Any] = {
    "ETag": {
        "description": "The version of the resource, for the If-Match of a later change.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{_ETAG}$"},
        "example": '"1"',
    },
    "Location": {
        "description": "The URL of the new resource.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
}

_DESCRIPTIONS = {200: "The current state.", 201: "Created."}


class _Sunset:
    """A dependency that announces the end of its route."""

    def __init__(self, on: date, since: date) -> None:
        if on <= since:
            raise ValueError(f"the route ends on {on}, which is not after {since}, the day of its deprecation")
        moments = [datetime.combine(day, time(), UTC) for day in (on, since)]
        self.headers = {
            "Sunset": format_datetime(moments[0], usegmt=True),
            "Deprecation": f"@{moments[1].timestamp():.0f}",
        }
        self.described = {"x-sunset": on.isoformat()}

    async def __call__(self, response: Response) -> None:
        response.headers.update(self.headers)


def sunset(on: date, *, since: date) -> Any:
    """Announce the end of a route, or of a router: `dependencies=[sunset(date(2027, 7, 1), since=date(2027, 1, 1))]`.

    Successful answers have the headers Deprecation (RFC 9745) and Sunset (RFC 8594), each the beginning of a day in UTC.
    The API document shows a ResourceRoute as deprecated, and the date as `x-sunset`. The route itself does not end.
    A route of another class has no part in the document, and no headers if its function returns a Response.
    """
    return Depends(_Sunset(on, since))


def streams_body(function: Served) -> Served:
    """Let a route read its body part by part, by `request.stream()`, instead of having the whole body in memory.

    Write it below the decorator of the route. A quarter of MAX_CONCURRENT_REQUESTS may be such requests. The limit of the
    body's size holds. The client may pause for REQUEST_TIMEOUT_SECONDS in all, apart from 16 KiB per second that arrive.
    """
    function.__dict__["streams_body"] = True
    return function


class ResourceRoute(APIRoute):
    """A route that returns one resource: `APIRouter(…, route_class=ResourceRoute)`.

    If the response model has an integer `version`, the answer's ETag is that version, for a later If-Match. If the
    model also has an `id` and the status is 201, Location is the path of the request and that id. Both values are
    attributes of the returned object, and the API document describes both headers. A header that the route sets itself
    stays.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._announced: dict[str, str] = {}
        for ending in (each.dependency for each in options.get("dependencies") or ()):
            if isinstance(ending, _Sunset):
                self._announced = ending.headers
                options["deprecated"] = True
                options["openapi_extra"] = {**(options.get("openapi_extra") or {}), **ending.described}
        status = options.get("status_code") or 200
        names = _headers_of(endpoint, options.get("response_model", Default(None)), status)
        if names:
            endpoint = _add_headers(endpoint, located="Location" in names)
            described = {"description": _DESCRIPTIONS.get(status, "Done."), "headers": {n: _HEADERS[n] for n in names}}
            given = options.get("responses") or {}
            options["responses"] = {**given, status: {**described, **given.get(status, {})}}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        return self._announcing(handle) if self._announced else handle

    def _announcing(
        self, handle: Callable[[Request], Coroutine[Any, Any, Response]]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Add the headers to a Response that the route's function returns, to which FastAPI adds no dependency's headers."""

        async def announce(request: Request) -> Response:
            response = await handle(request)
            response.headers.update(self._announced)
            return response

        return announce


def _headers_of(endpoint: Callable[..., Any], model: Any, status: int) -> list[str]:
    """Return the names of the headers that describe the resource which a route returns."""
    if isinstance(model, DefaultPlaceholder):
        model = inspect.signature(endpoint, eval_str=True).return_annotation
    known = getattr(model, "model_fields", {})
    if not inspect.iscoroutinefunction(endpoint) or "version" not in known or known["version"].annotation is not int:
        return []
    return ["ETag", "Location"] if status == 201 and "id" in known else ["ETag"]


def _add_headers(endpoint: Callable[..., Any], *, located: bool) -> Callable[..., Any]:
    """Wrap the route's function so that it sets ETag and Location.

    The wrapper asks FastAPI for the request and the response, if the route's function does not ask for them itself.
    """
    signature = inspect.signature(endpoint, eval_str=True)
    own = {
        each.annotation: each.name for each in signature.parameters.values() if each.annotation in (Request, Response)
    }
    added = {kind: f"described_{kind.__name__.lower()}" for kind in (Request, Response) if kind not in own}
    request_name, response_name = [(own | added)[kind] for kind in (Request, Response)]

    @wraps(endpoint)
    async def with_headers(**values: Any) -> Any:
        request, response = values[request_name], values[response_name]
        for name in added.values():
            del values[name]
        resource = await endpoint(**values)
        if not isinstance(resource, Response):
            raw = response.raw_headers  # to append here takes a fraction of the time that `response.headers` takes
            names = {name for name, _ in raw}
            if located and b"location" not in names:
                raw.append((b"location", f"{_quote(request.scope['path'])}/{resource.id}".encode("latin-1")))
            if b"etag" not in names:
                raw.append((b"etag", b'"%d"' % resource.version))
        return resource

    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind) for kind, name in added.items()]
    with_headers.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])  # ty: ignore[missing-attribute]
    return with_headers


class Cursor(RequestModel):
    """The start and the length of a page by id. Pages go by key, not by offset: inserts never shift or repeat rows."""

    limit: Annotated[int, Field(ge=1, le=100, description="Items per page.")] = 20
    # A query string has no null: a client leaves the parameter out.
    after: Annotated[
        Identifier | None,
        Field(description="The `next_cursor` of the previous page."),
        WithJsonSchema({"type": "string", "format": "uuid"}),
    ] = None
