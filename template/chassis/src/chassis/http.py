"""What a route may ask for."""

import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Request, Response
from pydantic import Field
from starlette.exceptions import HTTPException
from uuid_utils.compat import uuid7

from chassis.database import Database, UnitOfWork
from chassis.fields import RequestModel


async def _database(request: Request) -> Database:
    return request.app.state.database


async def _unit_of_work(request: Request) -> AsyncGenerator[UnitOfWork]:
    async with request.app.state.database.unit_of_work() as uow:
        yield uow


async def _now() -> datetime:
    return datetime.now(UTC)


async def _new_id() -> UUID:
    return uuid7()


Reader = Annotated[Database, Depends(_database)]
"""For routes that only read: each statement stands alone, without a transaction."""

# scope="function": the commit ends before the response starts, so that no client sees 2xx for a change that is lost.
Transaction = Annotated[UnitOfWork, Depends(_unit_of_work, scope="function")]
"""For routes that change something: one transaction, committed before the response is sent."""

Now = Annotated[datetime, Depends(_now)]

NewId = Annotated[UUID, Depends(_new_id)]
"""A fresh UUIDv7 (RFC 9562): sorts by the time it was made, which is what lists page by."""


async def _expected_version(
    if_match: Annotated[
        str | None,
        Header(
            description='The ETag of the copy this change was decided on, such as "3"; `*` for whatever is there now.',
            examples=["*"],
        ),
    ] = None,
) -> int | None:
    if if_match is None:
        raise HTTPException(428, 'send If-Match with the ETag of the copy you read, or "*" to change whatever is there')
    if if_match.strip() == "*":
        return None
    tag = re.fullmatch(r'\s*"(\d{1,18})"\s*', if_match)
    return int(tag[1]) if tag else NO_VERSION


NO_VERSION = 0
"""Equal to no version: versions start at 1. A weak, listed or foreign ETag matches nothing (RFC 9110, 13.1.1)."""

IfMatch = Annotated[int | None, Depends(_expected_version)]
"""The version that the caller's change is based on; None where the caller does not mind (`If-Match: *`)."""


def set_etag(response: Response, version: int) -> None:
    """Say which version the response shows, for a later If-Match."""
    response.headers["ETag"] = f'"{version}"'


class Cursor(RequestModel):
    """Where a page starts and how long it is. Pages go by key, not by offset: inserts never shift or repeat rows."""

    limit: Annotated[int, Field(ge=1, le=100, description="Items per page.")] = 20
    after: Annotated[UUID | None, Field(description="`next_cursor` of the page before.")] = None
