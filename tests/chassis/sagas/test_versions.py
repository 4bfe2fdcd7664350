"""A saga that runs while its code changes: the version of its start counts, and other steps than the recorded ones are refused."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from chassis.database import Database
from chassis.database.unit_of_work import Unlisted
from chassis.sagas import Diverged, Run, Saga, saga
from chassis.sagas.sweep import Sweep

from tests.chassis.messaging.timed import SILENT
from tests.chassis.sagas.ordering import (
    CardCharged,
    PlaceOrder,
    confirm_order,
    note,
    place_order,
    request_payment,
    reserve_stock,
)
from tests.chassis.sagas.players import Play, effects, messages_of, start


async def check_limit(order: PlaceOrder, uow: Any) -> None:
    await note("check", uow)


@saga("place-order", version=2)
async def with_check(run: Run, order: PlaceOrder) -> None:
    if run.version >= 2:
        await run.step(check_limit, order)
    await place_order.function(run, order)


@saga("place-order")
async def with_check_for_all(run: Run, order: PlaceOrder) -> None:
    await run.step(check_limit, order)
    await place_order.function(run, order)


@saga("place-order")
async def without_payment(run: Run, order: PlaceOrder) -> None:
    await run.step(reserve_stock, order)


async def waiting(orders: Database, playing: Play) -> None:
    """Bring a saga of version 1 to its wait."""
    player = playing(place_order)
    await start(orders)
    await player.play()


async def test_a_saga_keeps_the_version_of_its_start_and_a_new_saga_has_the_new_steps(
    orders: Database, playing: Play
) -> None:
    await waiting(orders, playing)
    player = playing(with_check)
    await player.reply(CardCharged("r-1"), saga=place_order, key="17")
    assert (await player.state(place_order, "17")).state == "completed"
    await start(orders, "18")
    await player.play()
    assert await effects(orders) == ["reserve", "request", "confirm", "check", "reserve", "request"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (with_check_for_all, r"asks for 'check_limit', where 'reserve_stock' is recorded as step 1"),
        (without_payment, r"ends, where 'request_payment' is recorded as step 2"),
    ],
)
async def test_steps_that_differ_from_the_recorded_steps_are_refused_and_the_row_is_kept(
    orders: Database, playing: Play, changed: Saga, reason: str
) -> None:
    await waiting(orders, playing)
    player = playing(changed)
    with pytest.raises(Diverged, match=f"the saga place-order '17' of version 1 {reason}"):
        await player.reply(CardCharged("r-1"), saga=place_order, key="17")
    found = await player.state(place_order, "17")
    assert (found.state, found.steps) == ("waiting", ["reserve_stock", "request_payment"])
    await playing(place_order).play()
    assert await effects(orders) == ["reserve", "request", "confirm"]


@pytest.mark.parametrize(
    "old", [place_order, dataclasses.replace(place_order, name="another")], ids=["version", "name"]
)
async def test_an_old_worker_leaves_a_saga_of_new_code_to_a_new_worker(
    orders: Database, playing: Play, old: Saga
) -> None:
    playing(with_check)
    await start(orders)
    await playing(old).play()
    assert await effects(orders) == []
    sweep = Sweep(orders, messages_of(with_check).sagas, SILENT)
    for minutes in (1, 2, 4):  # the sweep offers the saga again
        await playing(old).play()
        await orders.execute(
            "UPDATE chassis.sagas SET due_at = due_at - $1::interval", timedelta(minutes=minutes, seconds=1)
        )
        assert await sweep.sweep() == 1
    with pytest.raises(Unlisted, match="has no function here: deploy the function before what starts it"):
        await playing(old).play()
    await playing(with_check).play()
    assert await effects(orders) == ["check", "reserve", "request"]


async def test_an_answer_that_an_old_worker_takes_is_read_by_a_new_worker_after_a_minute(
    orders: Database, playing: Play
) -> None:
    player = playing(with_check)
    await start(orders)
    await player.play()
    await playing(place_order).reply(CardCharged("r-1"), saga=place_order, key="17")
    assert await effects(orders) == ["check", "reserve", "request"]
    player = playing(with_check)
    await player.pass_time(timedelta(seconds=61))
    assert await Sweep(orders, messages_of(with_check).sagas, SILENT).sweep() == 1
    await player.play()
    assert await effects(orders) == ["check", "reserve", "request", "confirm"]


@saga("place-order")
async def confirmed_early(run: Run, order: PlaceOrder) -> None:
    await run.step(reserve_stock, order)
    await run.step(request_payment, order)
    await run.step(confirm_order, order)


async def test_a_step_that_replaces_a_wait_runs(orders: Database, playing: Play) -> None:
    await waiting(orders, playing)
    player = playing(confirmed_early)
    await player.pass_time(timedelta(minutes=6))
    assert await effects(orders) == ["reserve", "request", "confirm"]
