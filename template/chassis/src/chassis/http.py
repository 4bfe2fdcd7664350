"""What a route may ask for."""

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import wraps
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import Depends, Header, Request, Response
from fastapi.datastructures import Default, DefaultPlaceholder
from fastapi.routing import APIRoute
from pydantic import Field, StringConstraints, WithJsonSchema
from uuid_utils.compat import uuid7

from chassis.database import Database, UnitOfWork
from chassis.database.current import current_database
from chassis.fields import Identifier, RequestModel


# Plain functions, not dependencies: FastAPI resolves one in two thirds of the time that asyncpg takes for a statement.
def reader() -> Database:
    """The database for a route that only reads: each statement stands alone, without a transaction."""
    try:
        return current_database.get()
    except LookupError:
        raise RuntimeError("no request is being answered here: call reader() and transaction() in a route") from None


def transaction() -> AbstractAsyncContextManager[UnitOfWork]:
    """`async with transaction() as uow:` around what a route changes.

    It is committed on leaving, and so before the answer: no client sees 2xx for a change that is lost. An exception rolls
    it back. Raises chassis.database.DatabaseUnavailable, which is answered with 503.
    """
    return reader().unit_of_work()


def utc_now() -> datetime:
    """The time that a use case is told."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """A fresh UUIDv7 (RFC 9562): sorts by the time it was made, which is what lists page by."""
    return uuid7()


_ETAG = '"[1-9][0-9]{0,17}"'


# Required, so that nobody overwrites a change unseen for want of a header; without it the answer is 428 (RFC 6585).
async def _expected_version(
    if_match: Annotated[
        str,
        StringConstraints(strip_whitespace=True),  # the server leaves what may stand behind a header's value
        Header(
            alias="If-Match",
            description='The ETag of the copy this change was decided on, such as `"3"`; `*` for whatever is there now.',
            # Weak where a proxy compresses (nginx, CDNs): it stands for other bytes then, and for the same version.
            pattern=rf"^(\*|(W/)?{_ETAG})$",
            examples=["*"],
        ),
    ],
) -> int | None:
    return None if if_match == "*" else int(if_match.removeprefix("W/").strip('"'))


IfMatch = Annotated[int | None, Depends(_expected_version)]
"""The version that the caller's change is based on; None where the caller does not mind (`If-Match: *`)."""


_HEADERS: dict[str, Any] = {
    "ETag": {
        "description": "The version that this shows, for the If-Match of a change.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{_ETAG}$"},
        "example": '"1"',
    },
    "Location": {
        "description": "Where the new one is.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
}

_DESCRIPTIONS = {200: "As it is now.", 201: "Created."}


class ResourceRoute(APIRoute):
    """A route that returns one resource: `APIRouter(…, route_class=ResourceRoute)`.

    If the response model has an integer `version`, that is the ETag of the answer, for a later If-Match. If it also has
    an `id` and the status is 201, Location is the path of the request and that id. Both are read from attributes of what
    the route returns. The API document says both. A header that the route sets by itself stays.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        status = options.get("status_code") or 200
        names = _headers_of(endpoint, options.get("response_model", Default(None)), status)
        if names:
            endpoint = _describing(endpoint, located="Location" in names)
            described = {"description": _DESCRIPTIONS.get(status, "Done."), "headers": {n: _HEADERS[n] for n in names}}
            given = options.get("responses") or {}
            options["responses"] = {**given, status: {**described, **given.get(status, {})}}
        super().__init__(path, endpoint, **options)


def _headers_of(endpoint: Callable[..., Any], model: Any, status: int) -> list[str]:
    """The headers that describe the resource which a route returns."""
    if isinstance(model, DefaultPlaceholder):
        model = inspect.signature(endpoint, eval_str=True).return_annotation
    known = getattr(model, "model_fields", {})
    if not inspect.iscoroutinefunction(endpoint) or "version" not in known or known["version"].annotation is not int:
        return []
    return ["ETag", "Location"] if status == 201 and "id" in known else ["ETag"]


def _describing(endpoint: Callable[..., Any], *, located: bool) -> Callable[..., Any]:
    """Wrap the route's function: FastAPI also gives it the request and the response, unless it asks for them itself."""
    signature = inspect.signature(endpoint, eval_str=True)
    own = {
        each.annotation: each.name for each in signature.parameters.values() if each.annotation in (Request, Response)
    }
    added = {kind: f"described_{kind.__name__.lower()}" for kind in (Request, Response) if kind not in own}
    request_name, response_name = [(own | added)[kind] for kind in (Request, Response)]

    @wraps(endpoint)
    async def describing(**values: Any) -> Any:
        request, response = values[request_name], values[response_name]
        for name in added.values():
            del values[name]
        resource = await endpoint(**values)
        if not isinstance(resource, Response):
            if located:
                response.headers.setdefault("Location", f"{quote(request.scope['path'])}/{resource.id}")
            response.headers.setdefault("ETag", f'"{resource.version}"')
        return resource

    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind) for kind, name in added.items()]
    describing.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])  # ty: ignore[missing-attribute]
    return describing


class Cursor(RequestModel):
    """Where a page starts and how long it is. Pages go by key, not by offset: inserts never shift or repeat rows."""

    limit: Annotated[int, Field(ge=1, le=100, description="Items per page.")] = 20
    # A query cannot say null, only leave it out.
    after: Annotated[
        Identifier | None,
        Field(description="`next_cursor` of the page before."),
        WithJsonSchema({"type": "string", "format": "uuid"}),
    ] = None
