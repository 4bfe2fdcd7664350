"""`republish`: each state is published once more in a run, no faster than asked, and a run that stopped can go on."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

import pytest
from chassis.commands import main
from chassis.database import Database, UnitOfWork
from chassis.messages import CurrentState, Messages
from chassis.messaging import republish_command
from chassis.messaging.outbox import Outbox
from chassis.messaging.republish_command import Progress, publish
from chassis.messaging.specs import asyncapi
from chassis.service import Service
from pydantic import SecretStr

from tests.chassis.tiny_messages import MESSAGES, ThingMade


async def read_things(uow: UnitOfWork, /, *, after: UUID, limit: int) -> Sequence[object]:
    query = "SELECT id FROM tiny.things WHERE id > $1 ORDER BY id LIMIT $2 FOR SHARE"
    return [ThingMade(row["id"], 0) for row in await uow.connection.fetch(query, after, limit)]


THINGS = CurrentState("things", read_things)
STATEFUL = dataclasses.replace(MESSAGES, states=(THINGS,))


@pytest.fixture
async def stored(database_url: str) -> AsyncGenerator[Database]:
    """A database with 30 things, whose ids are 1 to 30."""
    async with Database(
        SecretStr(database_url), pool_size=3, name="tiny", command_timeout_seconds=30, outbox=Outbox(STATEFUL)
    ) as database:
        things = "INSERT INTO tiny.things (id, name) SELECT lpad(to_hex(n), 32, '0')::uuid, n FROM generate_series(1, 30) AS n"
        await database.execute(things)
        yield database
        await database.execute("DELETE FROM tiny.things")
        await database.execute("DELETE FROM chassis.outbox")


async def sent(database: Database) -> list[tuple[int, str]]:
    rows = await database.fetch("SELECT aggregateid, republished FROM chassis.outbox ORDER BY seq")
    return [(UUID(row["aggregateid"]).int, row["republished"]) for row in rows]


async def run(
    database: Database, progress: Progress, *, per_second: int = 1000, stop: asyncio.Event | None = None
) -> None:
    await publish(database, STATEFUL, THINGS, progress, per_second=per_second, stop=stop or asyncio.Event())


async def test_each_state_is_published_once_under_the_id_of_the_run(
    stored: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(republish_command, "BATCH", 7)
    await run(stored, progress := Progress())
    assert await sent(stored) == [(number, progress.run) for number in range(1, 31)]
    assert (progress.published, progress.last.int, progress.complete) == (30, 30, True)


async def test_a_run_publishes_no_faster_than_asked(stored: Database) -> None:
    began_at = time.monotonic()
    await run(stored, Progress(last=UUID(int=10)), per_second=40)
    assert time.monotonic() - began_at >= 20 / 40


async def test_a_run_that_was_stopped_goes_on_behind_its_last_id(
    stored: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(republish_command, "BATCH", 10)
    stop = asyncio.Event()

    async def read_and_stop(uow: UnitOfWork, /, *, after: UUID, limit: int) -> Sequence[object]:
        stop.set()
        return await read_things(uow, after=after, limit=limit)

    progress = Progress()
    await publish(stored, STATEFUL, CurrentState("things", read_and_stop), progress, per_second=1000, stop=stop)
    assert (progress.published, progress.last.int, progress.complete) == (10, 10, False)
    await run(stored, Progress(last=progress.last))
    assert [number for number, _ in await sent(stored)] == [*range(1, 31)]


async def test_a_run_waits_until_the_outbox_has_room(stored: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(republish_command, "MOST_WAITING", 1)
    monkeypatch.setattr(republish_command, "LOOK_SECONDS", 0.01)
    async with stored.unit_of_work() as uow:
        await uow.publish(ThingMade(UUID(int=77), 0))
    running = asyncio.create_task(run(stored, progress := Progress()))
    await asyncio.sleep(0.2)
    assert (await sent(stored), progress.published) == ([(77, None)], 0)
    while not running.done():
        await stored.execute("DELETE FROM chassis.outbox")
        await asyncio.sleep(0.01)
    await running
    assert (progress.published, progress.complete) == (30, True)


def command(service: Service, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(dataclasses.replace(service, messages=STATEFUL), ["republish", *arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_the_command_publishes_the_states_behind_an_id(
    service: Service, stored_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = command(service, capsys, "things", "--after", str(UUID(int=28)))
    assert status == 0
    assert out.startswith("2 things published again, in the run ")
    assert err == f"2 things, up to {UUID(int=30)}\n"


@pytest.fixture
def stored_url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The URL of a database with 30 things, for a command that runs an event loop of its own."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def execute(*statements: str) -> None:
        async with Database(SecretStr(database_url), pool_size=1, name="tiny", command_timeout_seconds=30) as database:
            for statement in statements:
                await database.execute(statement)

    asyncio.run(
        execute(
            "INSERT INTO tiny.things (id, name) SELECT lpad(to_hex(n), 32, '0')::uuid, n FROM generate_series(1, 30) AS n"
        )
    )
    yield database_url
    asyncio.run(execute("DELETE FROM tiny.things", "DELETE FROM chassis.outbox"))


def test_a_database_that_does_not_answer_leaves_the_command_to_go_on(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://tiny@127.0.0.1:1/tiny")
    status, out, err = command(service, capsys, "things", "--after", str(UUID(int=28)))
    assert (status, err[:6]) == (1, "tiny: ")
    assert out.endswith(f"; go on with: republish things --after {UUID(int=28)}\n")


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["nothing"], "choose from"),
        (["things", "--per-second=0"], "'0' is not a number from 1 to 100000"),
        (["things", "--after=x"], "invalid UUID value: 'x'"),
    ],
)
def test_a_wrong_argument_is_named_with_its_rule(
    service: Service, capsys: pytest.CaptureFixture[str], arguments: list[str], rule: str
) -> None:
    with pytest.raises(SystemExit) as left:
        command(service, capsys, *arguments)
    assert left.value.code == 2
    assert rule in capsys.readouterr().err


def test_two_states_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="things has two lines: keep one line"):
        Messages("tiny", states=(THINGS, THINGS))


def test_the_document_of_a_service_with_states_has_the_header(service: Service) -> None:
    for messages, listed in ((MESSAGES, False), (STATEFUL, True)):
        document = asyncapi.document(dataclasses.replace(service, messages=messages))
        assert ("republished" in document["components"]["schemas"]["headers"]["properties"]) is listed
