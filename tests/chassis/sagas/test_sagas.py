"""A saga runs each step once, waits for answers, and undoes its steps in reverse."""

from datetime import timedelta

import pytest
from chassis.database import Database
from chassis.database.unit_of_work import Unlisted
from chassis.sagas.testing import SagaPlayer

from tests.chassis.sagas.ordering import CardCharged, CardRefused, PlaceOrder, place_order
from tests.chassis.sagas.players import effects, start

LATE = timedelta(minutes=5, seconds=1)


async def test_a_saga_runs_its_steps_up_to_the_wait_for_an_answer(orders: Database, player: SagaPlayer) -> None:
    await start(orders)
    await player.play()
    assert await effects(orders) == ["reserve", "request"]
    assert (await player.state(place_order, "17")).state == "waiting"


async def test_a_paid_order_is_confirmed(orders: Database, player: SagaPlayer) -> None:
    await start(orders)
    await player.play()
    await player.reply(CardCharged("r-1"), saga=place_order, key="17")
    assert await effects(orders) == ["reserve", "request", "confirm"]
    assert (await player.state(place_order, "17")).state == "completed"


async def test_a_refused_payment_undoes_the_steps_in_reverse(orders: Database, player: SagaPlayer) -> None:
    await start(orders)
    await player.play()
    await player.reply(CardRefused("no money"), saga=place_order, key="17")
    assert await effects(orders) == ["reserve", "request", "refund", "release"]
    found = await player.state(place_order, "17")
    assert (found.state, found.reason) == ("abandoned", "payment")
    assert found.undone == ["request_payment", "reserve_stock"]


async def test_a_time_out_undoes_the_steps_and_is_remembered_when_the_answer_comes_late(
    orders: Database, player: SagaPlayer
) -> None:
    await start(orders)
    await player.play()
    await player.pass_time(LATE)
    await player.reply(CardCharged("r-1"), saga=place_order, key="17")
    assert await effects(orders) == ["reserve", "request", "refund", "release"]
    assert (await player.state(place_order, "17")).state == "abandoned"


async def test_an_early_job_does_not_end_a_wait(orders: Database, player: SagaPlayer) -> None:
    await start(orders)
    await player.play()
    await player.pass_time(timedelta(minutes=4, seconds=50))
    assert (await player.state(place_order, "17")).state == "waiting"


async def test_the_same_key_is_one_saga(orders: Database, player: SagaPlayer) -> None:
    assert await start(orders) == await start(orders)
    await player.play()
    assert await effects(orders) == ["reserve", "request"]


async def test_a_saga_starts_only_if_the_transaction_commits(orders: Database, player: SagaPlayer) -> None:
    async def start_and_fail() -> None:
        async with orders.unit_of_work() as uow:
            await uow.start("place-order", PlaceOrder("17"), key="17")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await start_and_fail()
    await player.play()
    assert await effects(orders) == []
    assert await orders.fetch("SELECT FROM chassis.sagas") == []


async def test_a_saga_that_the_service_does_not_have_is_refused(orders: Database) -> None:
    with pytest.raises(Unlisted, match=r"this service has no saga 'place-orders' .place-order.: declare it in sagas/"):
        await start(orders, saga="place-orders")
