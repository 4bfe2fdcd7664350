"""Workers, broker and clock may do what they like: each step has one effect, and no saga is lost."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from chassis.brokers import SAGA, Kind, Message
from chassis.database import Database
from chassis.messages import Messages
from chassis.messaging import inbox
from chassis.sagas import AdvanceSagaV1, Run, Sagas, saga
from chassis.sagas.sweep import Sweep
from chassis.sagas.testing import SagaPlayer
from chassis.testing import until_blocked

from tests.chassis.messaging.timed import SILENT
from tests.chassis.sagas import ordering
from tests.chassis.sagas.ordering import CardCharged, PlaceOrder, place_order
from tests.chassis.sagas.players import Play, effects, messages_of, start

JOB = "orders.advance-saga.v1"


async def deliver(database: Database, messages: Messages, job: AdvanceSagaV1, message_id: str) -> None:
    """Deliver one copy of a job, as the consumer does."""
    message = Message(Kind.JOB, JOB, message_id, "key", job.model_dump_json().encode(), {SAGA: str(job.saga_id)})
    async with database.unit_of_work() as uow:
        if await inbox.claim(uow.connection, [message.identity]):
            inbox.introduce(message, uow, "orders")
            await messages.receiver(JOB).handler(job, uow)


async def test_two_workers_with_a_job_for_one_saga_take_turns_and_the_second_does_nothing(orders: Database) -> None:
    messages = messages_of(place_order)
    saga_id = await start(orders)
    job = AdvanceSagaV1(saga_id=saga_id)
    async with orders.unit_of_work() as uow:
        await messages.receiver(JOB).handler(job, uow)
        second = asyncio.create_task(deliver(orders, messages, job, "second"))
        await until_blocked(second, orders)
    await second
    assert await effects(orders) == ["reserve"]


@saga("two-answers")
async def two_answers(run: Run, order: PlaceOrder) -> None:
    await run.reply(CardCharged, within=timedelta(hours=1), name="first")
    await run.reply(CardCharged, within=timedelta(hours=1), name="second")


async def test_a_second_copy_of_an_answer_is_no_second_answer(orders: Database, playing: Play) -> None:
    player = playing(two_answers)
    messages = messages_of(two_answers)
    saga_id = await start(orders, saga=two_answers)
    await player.play()
    answer = AdvanceSagaV1(saga_id=saga_id, answer="CardCharged", body={"receipt": "r-1"})
    for _ in range(2):
        await deliver(orders, messages, answer, "the same")
        await player.play()
    found = await player.state(two_answers, "17")
    assert (found.state, found.steps) == ("waiting", ["first"])


async def jobs_of(database: Database) -> int:
    return len(await database.fetch("SELECT FROM chassis.outbox WHERE type = $1", JOB))


@pytest.fixture
def sweep(orders: Database) -> Sweep:
    return Sweep(orders, messages_of(place_order).sagas, SILENT)


async def test_a_saga_whose_job_was_lost_is_swept_and_goes_on(
    orders: Database, player: SagaPlayer, sweep: Sweep
) -> None:
    await start(orders)
    await orders.execute("DELETE FROM chassis.outbox")
    await player.play()
    assert await effects(orders) == []
    assert await sweep.sweep() == 0
    await player.pass_time(timedelta(seconds=61))
    assert await sweep.sweep() == 1
    await player.play()
    assert await effects(orders) == ["reserve", "request"]


async def test_a_wait_whose_delayed_job_was_lost_still_times_out(
    orders: Database, player: SagaPlayer, sweep: Sweep
) -> None:
    await start(orders)
    await player.play()
    await orders.execute("DELETE FROM chassis.outbox")
    await player.pass_time(timedelta(minutes=6, seconds=1))
    assert await sweep.sweep() == 1
    await player.play()
    assert (await player.state(place_order, "17")).state == "abandoned"


async def test_a_wait_that_is_not_overdue_is_not_swept(orders: Database, player: SagaPlayer, sweep: Sweep) -> None:
    await start(orders)
    await player.play()
    await orders.execute("DELETE FROM chassis.outbox")
    await player.pass_time(timedelta(minutes=5, seconds=50))
    assert await sweep.sweep() == 0


async def test_an_answer_whose_next_job_is_lost_is_read_long_before_the_deadline(
    orders: Database, player: SagaPlayer, sweep: Sweep
) -> None:
    saga_id = await start(orders)
    await player.play()
    answer = AdvanceSagaV1(saga_id=saga_id, answer="CardCharged", body={"receipt": "r-1"})
    await deliver(orders, messages_of(place_order), answer, "answer")
    await orders.execute("DELETE FROM chassis.outbox")
    await player.pass_time(timedelta(seconds=61))
    assert await sweep.sweep() == 1
    await player.play()
    assert await effects(orders) == ["reserve", "request", "confirm"]


async def test_a_saga_that_is_swept_again_and_again_gets_its_jobs_ever_more_rarely(
    orders: Database, player: SagaPlayer, sweep: Sweep
) -> None:
    await start(orders)
    await orders.execute("DELETE FROM chassis.outbox")
    await orders.execute("UPDATE chassis.sagas SET due_at = now() - interval '1 second'")
    swept = 0
    for _ in range(30):
        swept += await sweep.sweep()
        await orders.execute("UPDATE chassis.sagas SET due_at = due_at - interval '1 minute'")
    assert swept == await jobs_of(orders) == 4  # after 0, 2, 6 and 14 minutes
    await player.play()
    assert await effects(orders) == ["reserve", "request"]


async def test_a_sweep_that_takes_long_sweeps_no_saga_twice(orders: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.sagas.sweep.BATCH", 1)
    at_once = Sagas([place_order], idle=timedelta(0), keep=timedelta(days=30))
    await start(orders)
    await orders.execute("UPDATE chassis.sagas SET due_at = now() - interval '1 second'")
    async with asyncio.timeout(20):
        assert await Sweep(orders, at_once, SILENT).sweep() == 1


async def test_two_workers_sweep_an_idle_saga_once(orders: Database, sweep: Sweep) -> None:
    await start(orders)
    await orders.execute("DELETE FROM chassis.outbox")
    await orders.execute("UPDATE chassis.sagas SET due_at = now() - interval '1 second'")
    other = Sweep(orders, messages_of(place_order).sagas, SILENT)
    assert sum(await asyncio.gather(sweep.sweep(), other.sweep())) == 1


async def test_a_late_job_of_an_earlier_turn_does_nothing(orders: Database, player: SagaPlayer) -> None:
    saga_id = await start(orders)
    await player.play()
    await deliver(orders, messages_of(place_order), AdvanceSagaV1(saga_id=saga_id, turn=1), "late")
    assert await effects(orders) == ["reserve", "request"]


async def test_a_failed_step_has_no_effect_and_is_repeated(orders: Database, player: SagaPlayer) -> None:
    ordering.faults["request"] = RuntimeError("the database is in a bad mood")
    await start(orders)
    with pytest.raises(RuntimeError, match="bad mood"):
        await player.play()
    assert await effects(orders) == ["reserve"]
    ordering.faults.clear()
    await player.play()
    assert await effects(orders) == ["reserve", "request"]


async def test_an_unknown_saga_is_ignored(orders: Database) -> None:
    await deliver(orders, messages_of(place_order), AdvanceSagaV1(saga_id=UUID(int=7)), "unknown")
    assert await effects(orders) == []
