"""A worker parks what keeps failing, and a person lists, shows, retries, abandons and exports sagas by the command line."""

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from chassis.application import worker
from chassis.brokers import Kind, Message
from chassis.commands import main
from chassis.database import Database
from chassis.messaging import parking
from chassis.sagas import AdvanceSagaV1, rows
from chassis.sagas.recorded_values import Diverged
from chassis.sagas.sweep import Sweep
from chassis.sagas.testing import SagaPlayer, check_run
from chassis.service import Service
from chassis.testing import until_blocked

from tests.chassis.memory_broker import MemoryBroker
from tests.chassis.messaging.timed import SILENT
from tests.chassis.sagas import ordering
from tests.chassis.sagas.ordering import CardCharged, CardRefused, place_order
from tests.chassis.sagas.players import Play, effects, messages_of, start
from tests.support.waiting import until

Work = Callable[[], Any]


LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT[^ ]+ \[")


class Clerk:
    """A person at the command line of the ordering service. The command runs in a thread, as a process of its own would."""

    def __init__(self, service: Service, capsys: pytest.CaptureFixture[str]) -> None:
        self.service, self._capsys = service, capsys

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit status and both outputs, without the log of the worker, which goes on in the same process."""
        self._capsys.readouterr()
        status = await asyncio.to_thread(main, self.service, ["sagas", *arguments])
        shown = self._capsys.readouterr()
        output = "".join(line for line in shown.out.splitlines(keepends=True) if not LOG_LINE.match(line))
        return status, output, shown.err


@pytest.fixture
def ordering_service(service: Service) -> Service:
    return dataclasses.replace(service, messages=messages_of(place_order))


@pytest.fixture
def clerk(
    ordering_service: Service,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Clerk:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("LOG_FORMAT", "console")
    return Clerk(ordering_service, capsys)


@pytest.fixture
def working(ordering_service: Service, database_url: str, orders: Database, monkeypatch: pytest.MonkeyPatch) -> Work:
    """`working()`: a worker of the ordering service that makes one attempt at each message."""
    monkeypatch.setattr("chassis.messaging.worker.broker_for", MemoryBroker)

    @asynccontextmanager
    async def working() -> AsyncGenerator[None]:
        settings = ordering_service.settings.model_validate(
            {"database_url": database_url, "broker_url": f"nats://{uuid4()}", "message_max_attempts": 1}
        )
        app = worker(ordering_service, settings)
        async with app.router.lifespan_context(app):
            yield
        await orders.execute("DELETE FROM chassis.leaders")

    return working


async def parked(database: Database, count: int = 1) -> None:
    """Wait until this number of sagas is parked."""
    await until(lambda: _are(database, "SELECT count(*) FROM chassis.sagas WHERE problem IS NOT NULL", count))


async def _are(database: Database, query: str, count: int) -> bool:
    [row] = await database.fetch(query)
    return row[0] == count


async def ended(database: Database, state: str) -> None:
    await until(lambda: _are(database, f"SELECT count(*) FROM chassis.sagas WHERE state = '{state}'", 1))


async def refuse(orders: Database, player: SagaPlayer) -> UUID:
    """Bring a saga to its first compensation."""
    saga_id = await start(orders)
    await player.play()
    async with orders.unit_of_work() as uow:
        from chassis.sagas import reply

        await reply(uow, CardRefused("no money"), saga=place_order, key="17")
    return saga_id


async def test_a_failing_compensation_is_parked_with_the_steps_that_are_done_and_a_retry_finishes_the_saga(
    orders: Database, player: SagaPlayer, working: Work, clerk: Clerk
) -> None:
    ordering.faults["refund"] = RuntimeError("the bank is closed")
    saga_id = await refuse(orders, player)
    async with working():
        await parked(orders)
        assert str(saga_id) in (await clerk("list", "--state", "parked"))[1]
        _, shown, _ = await clerk("show", str(saga_id))
        assert "undoing, parked" in shown
        assert "request_payment: done" in shown
        assert "undone" not in shown
        assert "problem: RuntimeError: the bank is closed" in shown
        assert "reason: payment" in shown
        ordering.faults.clear()
        assert await clerk("retry", str(saga_id)) == (0, f"{saga_id}  tries its next step\n", "")
        await ended(orders, "abandoned")
    assert await effects(orders) == ["reserve", "request", "refund", "release"]
    assert await orders.fetch("SELECT FROM chassis.parked") == []


async def test_a_person_records_a_compensation_as_done_by_hand(
    orders: Database, player: SagaPlayer, working: Work, clerk: Clerk
) -> None:
    ordering.faults["refund"] = RuntimeError("the bank is closed")
    saga_id = await refuse(orders, player)
    async with working():
        await parked(orders)
        status, said, _ = await clerk("retry", str(saga_id), "--by-hand")
        assert (status, said) == (0, f"{saga_id}  tries what comes after undo request_payment\n")
        await ended(orders, "abandoned")
    assert await effects(orders) == ["reserve", "request", "release"]
    assert "request_payment: done" in (await clerk("show", str(saga_id)))[1]
    assert "undone by hand" in (await clerk("show", str(saga_id)))[1]


async def test_a_replay_of_the_parked_message_goes_on_like_a_retry(
    orders: Database, player: SagaPlayer, working: Work, clerk: Clerk
) -> None:
    ordering.faults["request"] = RuntimeError("no network")
    await start(orders)
    async with working():
        await parked(orders)
        ordering.faults.clear()
        [row] = await orders.fetch("SELECT id FROM chassis.parked")
        assert await asyncio.to_thread(main, clerk.service, ["parked", "replay", str(row["id"])]) == 0
        await until(lambda: _are(orders, "SELECT count(*) FROM chassis.sagas WHERE state = 'waiting'", 1))
    assert await effects(orders) == ["reserve", "request"]


async def park(orders: Database, saga_id: UUID) -> UUID:
    """Park the saga and the job of its current turn, as a worker does. Return the id of the parked message."""
    [row] = await orders.fetch("SELECT turn FROM chassis.sagas WHERE id = $1", saga_id)
    job = AdvanceSagaV1(saga_id=saga_id, turn=row["turn"]).model_dump_json().encode()
    message = Message(Kind.JOB, "orders.advance-saga.v1", "early", "key", job)
    async with orders.unit_of_work() as uow:
        await parking.park(uow.connection, message, direction="incoming", reason="Diverged: …", attempts=5)
        await uow.connection.execute(rows.PARK, saga_id, row["turn"], "Diverged: …", message.id)
    [row] = await orders.fetch("SELECT id FROM chassis.parked")
    return row["id"]


@pytest.mark.parametrize("decision", ["parked replay", "sagas retry"])
async def test_after_a_decision_about_a_parked_saga_that_waits_the_deadline_still_ends_the_wait(
    orders: Database, player: SagaPlayer, clerk: Clerk, decision: str
) -> None:
    saga_id = await start(orders)
    await player.play()
    parked_id = await park(orders, saga_id)
    which = parked_id if decision == "parked replay" else saga_id
    assert await asyncio.to_thread(main, clerk.service, [*decision.split(), str(which)]) == 0
    await player.play()
    assert "parked" not in (await clerk("show", str(saga_id)))[1]
    await player.pass_time(timedelta(minutes=5))
    assert (await player.state(place_order, "17")).state == "abandoned"


@pytest.mark.parametrize("version", [1, 2])
async def test_a_replay_by_a_version_without_the_function_is_refused_and_the_saga_stays_parked(
    orders: Database, playing: Play, clerk: Clerk, capsys: pytest.CaptureFixture[str], version: int
) -> None:
    new = dataclasses.replace(place_order, version=version, name="place-order" if version == 2 else "new")
    player = playing(new)
    saga_id = await start(orders, saga=new)
    parked_id = await park(orders, saga_id)
    assert await asyncio.to_thread(main, clerk.service, ["parked", "replay", str(parked_id)]) == 1
    assert (
        f"{parked_id} stays parked: Unlisted: the saga {new.name} of version {version} has no function here"
        in capsys.readouterr().err
    )
    await orders.execute("UPDATE chassis.sagas SET state = 'undoing'")
    status, _, problem = await clerk("retry", str(saga_id), "--by-hand")
    assert status == 1
    assert problem.startswith(f"tiny: the saga {new.name} of version {version} has no function here")
    await orders.execute("UPDATE chassis.sagas SET state = 'running'")
    await player.retry(new, "17")
    assert await effects(orders) == ["reserve", "request"]


async def test_a_parked_saga_keeps_an_answer_and_does_nothing_else_until_a_person_decides(
    orders: Database, player: SagaPlayer, working: Work, clerk: Clerk
) -> None:
    ordering.faults["request"] = RuntimeError("no network")
    saga_id = await start(orders)
    async with working():
        await parked(orders)
    ordering.faults.clear()
    await player.reply(CardCharged("r-1"), saga=place_order, key="17")
    assert await effects(orders) == ["reserve"]
    assert "not read: the answer CardCharged" in (await clerk("show", str(saga_id)))[1]
    await clerk("retry", str(saga_id))
    await player.play()
    assert await effects(orders) == ["reserve", "request", "confirm"]


async def test_a_person_abandons_a_saga_that_waits(orders: Database, player: SagaPlayer, clerk: Clerk) -> None:
    saga_id = await start(orders)
    await player.play()
    assert (await clerk("abandon", str(saga_id), "--reason", "a duplicate"))[:2] == (
        0,
        f"{saga_id}  undoes its steps\n",
    )
    await player.play()
    found = await player.state(place_order, "17")
    assert (found.state, found.reason) == ("abandoned", "a duplicate")
    assert await effects(orders) == ["reserve", "request", "refund", "release"]
    status, _, problem = await clerk("abandon", str(saga_id))
    assert (status, problem) == (1, f"tiny: {saga_id} is abandoned already\n")


async def test_a_saga_without_a_compensation_that_is_left_has_none_to_do_by_hand(
    orders: Database, player: SagaPlayer, clerk: Clerk
) -> None:
    saga_id = await start(orders)
    await orders.execute("UPDATE chassis.sagas SET state = 'undoing', problem = 'a reason'")
    status, _, problem = await clerk("retry", str(saga_id), "--by-hand")
    assert status == 1
    assert problem == (
        f"tiny: {saga_id} has no compensation left that a person could perform: `sagas retry` without --by-hand\n"
    )


async def test_the_export_of_a_saga_that_a_person_abandoned_replays(
    orders: Database, player: SagaPlayer, clerk: Clerk, tmp_path: Path
) -> None:
    saga_id = await start(orders)
    await player.play()
    await clerk("abandon", str(saga_id))
    await player.play()
    run = tmp_path / "run.json"
    run.write_text((await clerk("export", str(saga_id)))[1])
    assert json.loads(run.read_text())["state"] == "abandoned"
    await asyncio.to_thread(check_run, messages_of(place_order).sagas, run)


async def test_a_decision_waits_for_the_step_that_is_running(
    orders: Database, player: SagaPlayer, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.messaging.sagas_command.QUERY_SECONDS", 0.1)
    saga_id = await start(orders)
    async with orders.unit_of_work() as uow:
        await uow.connection.fetchrow(rows.LOCK, saga_id)
        monkeypatch.setenv("MESSAGE_TIMEOUT_SECONDS", "0.1")
        status, _, problem = await clerk("abandon", str(saga_id))
        assert (status, problem) == (
            1,
            "tiny: the database has not answered within 0.2 seconds. A step of the saga may be running: run the command again\n",
        )
        monkeypatch.setenv("MESSAGE_TIMEOUT_SECONDS", "30")
        deciding = asyncio.create_task(clerk("abandon", str(saga_id)))
        await until_blocked(deciding, orders)
    assert (await deciding)[0] == 0


@pytest.mark.parametrize("action", ["show", "retry", "abandon", "export"])
async def test_an_unknown_id_is_refused(orders: Database, clerk: Clerk, action: str) -> None:
    status, _, problem = await clerk(action, str(UUID(int=1)))
    assert status == 1
    assert problem == f"tiny: no saga has the id {UUID(int=1)}: `sagas list` shows the ids\n"


async def test_a_retry_of_a_saga_that_is_not_parked_is_refused(
    orders: Database, player: SagaPlayer, clerk: Clerk
) -> None:
    saga_id = await start(orders)
    await player.play()
    status, _, problem = await clerk("retry", str(saga_id))
    assert (status, problem) == (1, f"tiny: {saga_id} is not parked, so nothing waits for a retry\n")


async def test_the_list_has_a_line_for_each_saga_that_has_not_ended(
    orders: Database, player: SagaPlayer, clerk: Clerk
) -> None:
    first, second = await start(orders, "17"), await start(orders, "18\x1b[31m".replace("\x1b[31m", " red"))
    await player.play()
    await player.reply(CardCharged("r"), saga=place_order, key="17")
    _, shown, _ = await clerk("list")
    assert [line.split()[0] for line in shown.splitlines()] == [str(second)]
    assert shown.rstrip().endswith("waiting  CardCharged | CardRefused")
    (listed,) = json.loads((await clerk("list", "--state", "completed", "--format", "json"))[1])
    assert (listed["id"], listed["key"]) == (str(first), "17")
    assert (await clerk("list", "--key", "none"))[1:] == ("", "No saga is in this state.\n")


async def test_the_latest_sagas_are_listed_with_their_steps_and_without_data(
    orders: Database, player: SagaPlayer, clerk: Clerk
) -> None:
    parked_id, trace = await start(orders, "parked"), "5" * 32
    for key, answer in (
        ("old", CardCharged("")),
        ("refused", CardRefused("secret")),
        ("charged", CardCharged("secret")),
    ):
        await start(orders, key)
        await player.play()
        await player.reply(answer, saga=place_order, key=key)
    await orders.execute(
        "UPDATE chassis.sagas SET problem = 'RuntimeError: no network', traceparent = $2 WHERE id = $1",
        parked_id,
        f"00-{trace}-{'1' * 16}-01",
    )
    await orders.execute(
        "UPDATE chassis.sagas SET updated_at = now() - interval '1 hour' WHERE key IN ('parked', 'old')"
    )
    _, shown, _ = await clerk("list", "--state", "all", "--latest", "--limit", "3", "--format", "json")
    listed = json.loads(shown)
    assert [(saga["key"], saga["state"], saga["problem"]) for saga in listed] == [
        ("parked", "waiting", "RuntimeError: no network"),
        ("charged", "completed", None),
        ("refused", "abandoned", None),
    ]
    assert datetime.fromisoformat(listed[0]["deadline"]) - datetime.now(UTC) > timedelta(minutes=3)
    assert listed[0]["trace_id"] == trace
    *_, answered, confirmed = listed[1]["steps"]
    assert answered == {"name": "CardCharged | CardRefused", "at": answered["at"], "answer": "CardCharged"}
    assert confirmed == {"name": "confirm_order", "at": confirmed["at"]}
    assert [step["name"] for step in listed[2]["steps"] if "undone" in step] == ["reserve_stock", "request_payment"]
    assert "secret" not in shown


async def test_an_exported_run_replays_against_the_code_and_names_where_other_code_diverges(
    orders: Database, player: SagaPlayer, clerk: Clerk, tmp_path: Path
) -> None:
    saga_id = await start(orders)
    await player.play()
    run = tmp_path / "run.json"
    for answer in (None, CardCharged("r-1")):
        if answer:
            await player.reply(answer, saga=place_order, key="17")
        run.write_text((await clerk("export", str(saga_id)))[1])
        await asyncio.to_thread(check_run, messages_of(place_order).sagas, run)

    changed = dataclasses.replace(place_order, function=_confirms_first)
    with pytest.raises(Diverged, match=r"asks for 'confirm_order', where 'reserve_stock' is recorded as step 1"):
        await asyncio.to_thread(check_run, messages_of(changed).sagas, run)
    longer = dataclasses.replace(place_order, function=_confirms_twice)
    with pytest.raises(
        Diverged, match=r"the saga is completed after its recorded steps, and with the code here it would be"
    ):
        await asyncio.to_thread(check_run, messages_of(longer).sagas, run)


async def _confirms_first(run: Any, order: Any) -> None:
    await run.step(ordering.confirm_order, order)


async def _confirms_twice(run: Any, order: Any) -> None:
    await place_order.function(run, order)
    await run.step(ordering.confirm_order, order, name="confirm again")


async def test_old_sagas_are_forgotten_and_others_are_kept(orders: Database, player: SagaPlayer) -> None:
    await start(orders, "17")
    await start(orders, "18")
    await player.play()
    await player.reply(CardCharged("r"), saga=place_order, key="17")
    await orders.execute(
        "UPDATE chassis.sagas SET ended_at = ended_at - interval '31 days', started_at = now() - interval '1 year'"
    )
    await orders.execute("""
        INSERT INTO chassis.sagas (id, name, key, version, params, state, ended_at)
        SELECT gen_random_uuid(), 'place-order', 'old ' || number, 1, '{}', 'completed', now() - interval '31 days'
        FROM generate_series(1, 2500) AS number
    """)
    sweeping = asyncio.create_task(Sweep(orders, messages_of(place_order).sagas, SILENT).run(stop := asyncio.Event()))
    await asyncio.sleep(0)  # let the sweep start: after the stop no other sweep follows
    stop.set()
    await sweeping
    assert [row["key"] for row in await orders.fetch("SELECT key FROM chassis.sagas")] == ["18"]


async def test_a_worker_sweeps_by_itself(orders: Database, player: SagaPlayer, working: Work) -> None:
    await start(orders)
    await orders.execute("DELETE FROM chassis.outbox")
    await orders.execute("UPDATE chassis.sagas SET due_at = now() - interval '1 second'")
    async with working():
        await until(lambda: _are(orders, "SELECT count(*) FROM chassis.sagas WHERE state = 'waiting'", 1))
    assert await effects(orders) == ["reserve", "request"]
