"""What a route may ask for."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Request, Response
from pydantic import Field, StringConstraints, WithJsonSchema
from uuid_utils.compat import uuid7

from chassis.database import Database, UnitOfWork
from chassis.fields import Identifier, RequestModel


# Functions, and no dependencies: one costs FastAPI two thirds of what a statement costs asyncpg.
def reader(request: Request) -> Database:
    """What a route that only reads hands on: each statement stands alone, without a transaction."""
    return request.app.state.database


def transaction(request: Request) -> AbstractAsyncContextManager[UnitOfWork]:
    """`async with transaction(request) as uow:` around what a route changes.

    It is committed on leaving, and so before the answer: no client sees 2xx for a change that is lost. An exception rolls
    it back. Raises chassis.database.DatabaseUnavailable, which is answered with 503.
    """
    return request.app.state.database.unit_of_work()


async def _database(request: Request) -> Database:
    return reader(request)


async def _unit_of_work(request: Request) -> AsyncGenerator[UnitOfWork]:
    async with transaction(request) as uow:
        yield uow


Reader = Annotated[Database, Depends(_database)]
"""`reader` as a dependency of FastAPI, which costs more."""

# scope="function": it ends before the response starts.
Transaction = Annotated[UnitOfWork, Depends(_unit_of_work, scope="function")]
"""`transaction` as a dependency of FastAPI, around the whole route. It begins before the body is validated, and costs more."""


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

Responses = dict[int | str, dict[str, Any]]

CREATED: Responses = {201: {"description": "Created.", "headers": _HEADERS}}
"""The `responses` of a route that creates one thing: it sets Location, and the ETag by `set_etag`."""

SHOWN: Responses = {200: {"description": "As it is now.", "headers": {"ETag": _HEADERS["ETag"]}}}
"""The `responses` of a route that shows one thing, changed or not: it sets the ETag by `set_etag`."""


def set_etag(response: Response, version: int) -> None:
    """Say which version the response shows, for a later If-Match."""
    response.headers["ETag"] = f'"{version}"'


class Cursor(RequestModel):
    """Where a page starts and how long it is. Pages go by key, not by offset: inserts never shift or repeat rows."""

    limit: Annotated[int, Field(ge=1, le=100, description="Items per page.")] = 20
    # A query cannot say null, only leave it out.
    after: Annotated[
        Identifier | None,
        Field(description="`next_cursor` of the page before."),
        WithJsonSchema({"type": "string", "format": "uuid"}),
    ] = None
