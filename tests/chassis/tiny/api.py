"""Routes of the tiny service: each needs one promise of the chassis."""

import asyncio
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Annotated, Literal

import sqlalchemy as sa
import structlog
from chassis import fields
from chassis.client import service_client
from chassis.database import Statement
from chassis.errors import Conflict, Forbidden, NotFound, VersionMismatch
from chassis.http import Cursor, IfMatch, ResourceRoute, new_id, reader, streams_body, transaction
from chassis.listing import ListCursor, Listing, Page
from chassis.problems import problems
from fastapi import APIRouter, Query, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import MISSING, Field

from tests.chassis.tiny.tables import things

INSERT = Statement(sa.insert(things))
BY_ID = Statement(sa.select(things).where(things.c.id == sa.bindparam("id")))
PAGE = Statement(sa.select(things).order_by(things.c.id).limit(sa.bindparam("limit")))
SEARCH = Listing(
    sa.select(things),
    lambda row: Thing(**row),
    key=things.c.id,
    sorts={"name": things.c.name, "-name": things.c.name.desc()},
    filters={"email": things.c.email == sa.bindparam("email")},
)

log = structlog.get_logger()

router = APIRouter(prefix="/v1", route_class=ResourceRoute)


class ThingNotFound(NotFound):
    code = "thing_not_found"


class ThingTaken(Conflict):
    code = "thing_taken"


class ThingHidden(Forbidden):
    code = "thing_hidden"


class NewThing(fields.RequestModel):
    name: Annotated[fields.Text, Field(max_length=40, examples=["lamp"])]
    email: Annotated[fields.Text, Field(max_length=80)] | None = None


class Thing(fields.ResponseModel):
    id: fields.Identifier
    name: str
    email: str | None
    version: int = 1


class ThingPatch(fields.PatchModel):
    name: Annotated[fields.Text, Field(max_length=40)] | MISSING = MISSING
    email: Annotated[fields.Text, Field(max_length=80)] | MISSING | None = MISSING


class ThingSearch(ListCursor):
    sort: Literal["name", "-name"] = "name"
    email: Annotated[fields.Text, Field(max_length=80)] | None = None


class ThingPage(fields.ResponseModel):
    items: list[Thing]
    next_cursor: str | None


class Values(fields.RequestModel):
    """One field of each type."""

    text: Annotated[fields.Text, Field(max_length=10)] | None = None
    integer: fields.Integer | None = None
    boolean: fields.Boolean | None = None
    moment: fields.Timestamp | None = None
    amount: Annotated[Decimal, *fields.decimal(12, 2)] | None = None
    money: fields.MoneyField | None = None


@router.post("/things", status_code=201)
async def create_thing(body: NewThing) -> Thing:
    thing = Thing(id=new_id(), **dict(body))
    async with transaction() as uow:
        await INSERT.run(uow.connection, **thing.model_dump(exclude={"version"}))
    return thing


@router.get("/things")
async def list_things(cursor: Annotated[Cursor, Query()]) -> list[Thing]:
    return [Thing(**row) for row in await PAGE.all(reader(), limit=cursor.limit)]


@router.get("/things/search", response_model=ThingPage)
async def search_things(search: Annotated[ThingSearch, Query()]) -> Page[Thing]:
    return await SEARCH.page(reader(), **dict(search))


@router.get("/things/{thing_id}", responses=problems(ThingNotFound))
async def get_thing(thing_id: fields.Identifier) -> Thing:
    row = await BY_ID.one(reader(), id=thing_id)
    if row is None:
        raise ThingNotFound(f"no thing {thing_id}")
    return Thing(**row)


@router.patch("/things/{thing_id}")
async def change_thing(thing_id: fields.Identifier, body: ThingPatch, expected_version: IfMatch) -> dict:
    return {"expected_version": expected_version, "changes": body.changes()}


@router.post("/things/slow", status_code=201)
async def create_thing_slowly(body: NewThing, seconds: float) -> Thing:
    """Insert, then keep the transaction open for a while."""
    thing = Thing(id=new_id(), **dict(body))
    async with transaction() as uow:
        await INSERT.run(uow.connection, **thing.model_dump(exclude={"version"}))
        await uow.connection.execute("SELECT pg_sleep($1)", seconds)
    return thing


@router.post("/values")
async def show_values(body: Values) -> Values:
    return body


@router.post("/bytes")
async def count_bytes(request: Request) -> int:
    return len(await request.body())


@router.post("/upload", max_body_size=2**40)
@streams_body
async def upload(request: Request) -> int:
    """Count the bytes of a body that does not fit into memory."""
    return sum([len(part) async for part in request.stream()])


@router.get("/sleep")
async def sleep(seconds: float) -> float:
    """Take time without a connection to the database."""
    log.info("sleep_began")
    await asyncio.sleep(seconds)
    return seconds


@router.get("/query-sleep")
async def query_sleep(seconds: float) -> float:
    """Take time with a connection to the database."""
    await reader().execute("SELECT pg_sleep($1)", seconds)
    return seconds


@router.get("/failures/{family}")
async def fail(family: str) -> None:
    raise {
        "not-found": ThingNotFound("no such thing"),
        "conflict": ThingTaken("it is taken"),
        "forbidden": ThingHidden("not for you"),
        "outdated": VersionMismatch("read it again"),
        "bug": RuntimeError("a message for engineers"),
        "timeout": TimeoutError("somebody else was too slow"),
    }[family]


@router.get("/late-body")
async def say_that_it_comes(seconds: float) -> Response:
    """Send the head of a response long before its body."""

    async def content() -> AsyncGenerator[bytes]:
        await asyncio.sleep(seconds)
        yield b"here it is"

    return StreamingResponse(content())


@router.get("/half")
async def half() -> Response:
    """Fail after the first half of the response was sent."""

    async def content() -> AsyncGenerator[bytes]:
        yield b"first half"
        raise RuntimeError("no second half")

    return StreamingResponse(content())


@router.websocket("/live")
async def talk(websocket: WebSocket) -> None:
    """Accept a websocket, which the server never lets through."""
    await websocket.accept()


@router.get("/onward")
async def onward(url: str) -> int:
    """Send a request to another service."""
    async with service_client(url, timeout_seconds=2) as client:
        return (await client.get("/there", params={"email": "alice@example.com"})).status_code
