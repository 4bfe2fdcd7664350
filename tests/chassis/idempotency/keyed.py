"""Routes that change the table of the tiny service in each way that matters for a key, and an application with them."""

import asyncio
import dataclasses
from contextlib import suppress
from typing import Any

from chassis.application import application
from chassis.errors import Conflict, Forbidden
from chassis.http import ResourceRoute, new_id, reader, streams_body, transaction
from chassis.idempotency import IdempotencyKeys
from chassis.identity import Oidc, OidcSettings, public, scopes
from chassis.telemetry.setup import Telemetry
from fastapi import APIRouter, BackgroundTasks, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tests.chassis.issuing import AUDIENCE, ISSUER, Issuer
from tests.chassis.tiny.api import BY_ID, INSERT, NewThing, Thing, ThingTaken
from tests.chassis.tiny.main import SERVICE

router = APIRouter(prefix="/v1", route_class=ResourceRoute)
guarded = APIRouter(prefix="/v1", route_class=ResourceRoute)

calls: list[str] = []
"""The names of the bodies that reached a route."""
holding, freed = asyncio.Event(), asyncio.Event()
"""`POST /held` sets the first inside its transaction, and waits for the second."""


class Unwelcome(Forbidden):
    code = "unwelcome"


async def insert(body: NewThing) -> Thing:
    thing = Thing(id=new_id(), **dict(body))
    async with transaction() as uow:
        await INSERT.run(uow.connection, **thing.model_dump(exclude={"version"}))
    return thing


@router.post("/things", status_code=201)
async def create_thing(body: NewThing) -> Thing:
    calls.append(body.name)
    return await insert(body)


@router.put("/things")
async def put_thing(body: NewThing) -> Thing:
    return await insert(body)


@router.post("/held", status_code=201)
async def create_and_hold(body: NewThing) -> Thing:
    thing = Thing(id=new_id(), **dict(body))
    async with transaction() as uow:
        await INSERT.run(uow.connection, **thing.model_dump(exclude={"version"}))
        holding.set()
        await freed.wait()
    return thing


@router.post("/refused", status_code=201)
async def refuse_inside(body: NewThing) -> Thing:
    calls.append(body.name)
    async with transaction() as uow:
        await INSERT.run(uow.connection, id=new_id(), **dict(body))
        raise ThingTaken("the rule is broken after a statement")


@router.post("/counted", status_code=201)
async def refuse_after_counting(body: NewThing) -> Thing:
    calls.append(body.name)
    await insert(body)
    raise Unwelcome("the attempt is counted, and refused")


@router.post("/broken", status_code=201)
async def break_halfway(body: NewThing) -> Thing:
    await insert(body)
    raise RuntimeError("a mistake after the first of two changes")


@router.post("/batch")
async def create_what_fits(body: list[NewThing]) -> list[str]:
    done = []
    for each in body:
        try:
            async with transaction() as uow:
                await INSERT.run(uow.connection, id=new_id(), **dict(each))
                if each.name == "unfit":
                    raise ThingTaken("this one does not fit")
            done.append(each.name)
        except Conflict:
            continue
    return done


@router.post("/gathered")
async def create_what_fits_at_the_same_time(body: list[NewThing]) -> list[str]:
    return [name for names in await asyncio.gather(*(create_what_fits([each]) for each in body)) for name in names]


@router.post("/swallowed")
async def go_on_after_a_broken_statement(body: list[NewThing]) -> list[str]:
    """Insert the first thing, fail to insert the second because of its unique address, and answer as if both existed."""
    await insert(body[0])
    try:
        await insert(body[1])
    except Exception:
        calls.append("swallowed")
    return [each.name for each in body]


@router.post("/given-up")
async def go_on_after_a_pause(body: list[NewThing]) -> list[str]:
    """Insert the first and the third thing. A time-out rolls the insert of the second back."""
    await insert(body[0])
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05), transaction() as uow:
            await INSERT.run(uow.connection, id=new_id(), **dict(body[1]))
            await freed.wait()
    await insert(body[2])
    return [body[0].name, body[2].name]


@router.post("/fallen-back", status_code=202)
async def fall_back(body: NewThing) -> None:
    """Swallow whatever fails."""
    calls.append(body.name)
    with suppress(Exception):
        await insert(body)


@router.post("/by-the-reader")
async def refuse_and_write_by_the_reader(body: NewThing) -> None:
    with suppress(Conflict):
        async with transaction():
            raise ThingTaken("nothing has changed so far")
    await INSERT.run(reader(), id=new_id(), **dict(body))


@router.post("/read-back")
async def read_back(body: NewThing) -> list[str]:
    thing = await insert(body)
    rows = await asyncio.gather(*(BY_ID.one(reader(), id=thing.id) for _ in range(3)))
    return [row["name"] for row in rows if row]


@router.post("/large", status_code=201)
async def answer_at_length(body: NewThing) -> str:
    await insert(body)
    return "x" * 100_000


@router.post("/stream")
async def answer_in_parts(body: NewThing) -> StreamingResponse:
    await insert(body)

    async def parts():
        yield b"one "
        yield b"two"

    return StreamingResponse(parts())


@router.post("/background", status_code=204)
async def insert_again_in_the_background(body: NewThing, background: BackgroundTasks) -> None:
    await insert(body)
    background.add_task(insert, NewThing(name=f"{body.name} again"))


@router.post("/question")
async def change_nothing(body: NewThing) -> int:
    calls.append(body.name)
    return len(calls)


@router.post("/upload")
@streams_body
async def upload(request: Request) -> int:
    return sum([len(part) async for part in request.stream()])


@guarded.post("/things", status_code=201)
@scopes("things:write")
async def create_as_caller(body: NewThing) -> Thing:
    return await insert(body)


@guarded.post("/signs", status_code=201)
@public("everybody may put up a sign")
async def put_up_a_sign(body: NewThing, response: Response) -> Thing:
    response.headers.append("Set-Cookie", "a=1")
    response.headers.append("Set-Cookie", "b=2")
    return await insert(body)


def make(database_url: str, *, issuer: Issuer | None = None, idempotency: bool = True, **settings: Any) -> FastAPI:
    """Make an application with these routes; with an issuer, the routes that ask for a token."""
    service = dataclasses.replace(
        SERVICE,
        routers=[guarded if issuer else router],
        auth=Oidc() if issuer else None,
        idempotency=IdempotencyKeys() if idempotency else None,
    )
    trusted = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE}
    values = {"database_url": database_url, "log_format": "console", **trusted, **settings}
    telemetry = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[])
    app = application(service, OidcSettings.model_validate(values), telemetry=telemetry)
    if issuer:
        app.state.guard._tokens = issuer.tokens()
    return app
