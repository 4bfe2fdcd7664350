"""A saga runs each step once, waits for answers, and undoes its steps in reverse."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from chassis.database import Database, UnitOfWork
from chassis.database.unit_of_work import Unlisted, as_sagas
from chassis.errors import Conflict
from chassis.sagas import MAX_BYTES, MAX_STEPS, Abandon, Diverged, Run, TimedOut, TooLarge, reply, saga
from chassis.sagas.testing import SagaPlayer
from pydantic import SecretStr

from tests.chassis.sagas import ordering
from tests.chassis.sagas.ordering import (
    CardCharged,
    CardRefused,
    OutOfStock,
    PlaceOrder,
    Reserved,
    confirm_order,
    note,
    place_order,
    refund,
    release_stock,
    request_payment,
    reserve_stock,
)
from tests.chassis.sagas.players import Play, effects, messages_of, start

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


@pytest.mark.parametrize(("by_hand", "done"), [(False, ["refund", "release"]), (True, ["release"])])
async def test_a_test_parks_a_failing_compensation_and_decides_as_a_person_does(
    orders: Database, player: SagaPlayer, by_hand: bool, done: list[str]
) -> None:
    await start(orders)
    await player.play()
    ordering.faults["refund"] = RuntimeError("the bank is closed")
    with pytest.raises(RuntimeError):
        await player.reply(CardRefused("no money"), saga=place_order, key="17")
    await player.park("the bank is closed")
    await player.play()
    parked = await player.state(place_order, "17")
    assert (parked.state, parked.problem, parked.undone) == ("undoing", "the bank is closed", [])
    ordering.faults.clear()
    await player.retry(place_order, "17", by_hand=by_hand)
    assert await effects(orders) == ["reserve", "request", *done]
    found = await player.state(place_order, "17")
    assert (found.state, found.problem) == ("abandoned", None)


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


@saga("remind")
async def remind(run: Run, order: PlaceOrder) -> None:
    """After a time-out, ask for the payment again instead of abandoning the order."""
    answer = await run.reply(CardCharged, within=timedelta(minutes=5))
    if isinstance(answer, TimedOut):
        await run.step(request_payment, order)
        answer = await run.reply(CardCharged, within=timedelta(minutes=5), name="second chance")
    await run.step(confirm_order, order)


async def test_a_saga_that_goes_another_way_after_a_time_out_keeps_to_this_way(orders: Database, playing: Play) -> None:
    player = playing(remind)
    await start(orders, saga=remind)
    await player.play()
    await player.pass_time(LATE)
    await player.reply(CardCharged("r-1"), saga=remind, key="17")
    assert await effects(orders) == ["request", "confirm"]
    assert (await player.state(remind, "17")).steps == [
        "CardCharged",
        "request_payment",
        "second chance",
        "confirm_order",
    ]


@saga("careful")
async def careful(run: Run, order: PlaceOrder) -> None:
    """Catch the domain error of the first step, and run a further step before the saga is abandoned."""
    try:
        await run.step(reserve_stock, order, undo=release_stock)
    except OutOfStock as error:
        await run.step(request_payment, order, undo=refund)
        raise Abandon(str(error)) from error


async def test_a_domain_error_undoes_its_step_and_is_raised_again_in_each_replay(
    orders: Database, playing: Play
) -> None:
    ordering.faults["reserve"] = OutOfStock("no bolts left")
    player = playing(careful)
    await start(orders, saga=careful)
    await player.play()
    found = await player.state(careful, "17")
    assert (found.state, found.reason) == ("abandoned", "no bolts left")
    assert await effects(orders) == ["request", "refund"]
    assert found.undone == ["request_payment"]


@saga("swallow")
async def swallow(run: Run, order: PlaceOrder) -> None:
    with suppress(RuntimeError):
        await run.step(request_payment, order)
    await run.step(confirm_order, order)


async def test_a_saga_cannot_swallow_an_error_that_is_no_domain_error(orders: Database, playing: Play) -> None:
    ordering.faults["request"] = RuntimeError("the network is down")
    player = playing(swallow)
    await start(orders, saga=swallow)
    with pytest.raises(RuntimeError, match="network is down"):
        await player.play()
    assert await effects(orders) == []


class Refusals:
    class Declined(Conflict):
        """An error below another class, with parameters of its own."""

        code = "declined"

        def __init__(self, amount: int, currency: str) -> None:
            super().__init__(f"{amount} {currency} were declined")


@saga("declined")
async def declined(run: Run, order: PlaceOrder) -> None:
    try:
        await run.step(request_payment, order)
    except Refusals.Declined as error:
        raise Abandon(str(error)) from error


async def test_a_domain_error_of_any_shape_is_raised_again_with_its_class_and_its_text(
    orders: Database, playing: Play
) -> None:
    ordering.faults["request"] = Refusals.Declined(5, "EUR")
    player = playing(declined)
    await start(orders, saga=declined)
    await player.play()
    assert (await player.state(declined, "17")).reason == "5 EUR were declined"


@saga("careless")
async def careless(run: Run, order: PlaceOrder) -> None:
    """Abandon the saga after any exception."""
    try:
        await run.step(reserve_stock, order, undo=release_stock)
        await run.step(request_payment, order, undo=refund)
        await run.sleep(timedelta(days=3), name="grace period")
    except Exception as error:
        raise Abandon("a step failed") from error


@pytest.mark.parametrize(
    ("steps", "error", "problem"),
    [
        ("""replace(steps::text, '"order_id"', '"number"')::json""", ValueError, "order_id"),
        (
            """replace(steps::text, '"result": null', '"result": "x", "error": "chassis.errors:Gone"')::json""",
            Diverged,
            "has recorded the error chassis.errors:Gone, which the code here does not have",
        ),
    ],
    ids=["result", "error"],
)
async def test_a_record_that_the_code_cannot_read_parks_a_saga_and_is_no_reason_to_abandon(
    orders: Database, playing: Play, steps: str, error: type[Exception], problem: str
) -> None:
    player = playing(careless)
    await start(orders, saga=careless)
    await player.play()
    await orders.execute(f"UPDATE chassis.sagas SET steps = {steps}")
    with pytest.raises(error, match=problem):
        await player.pass_time(timedelta(days=3))
    assert (await player.state(careless, "17")).state == "waiting"
    assert await effects(orders) == ["reserve", "request"]


@saga("greedy")
async def greedy(run: Run, order: PlaceOrder) -> None:
    """Catch every BaseException, even the exception that ends a replay, and then wait."""
    try:
        await run.step(request_payment, order, undo=refund)
        await run.step(confirm_order, order)
    except BaseException as error:
        await run.sleep(timedelta(days=3), name="grace period")
        raise Abandon("caught") from error


async def test_a_saga_that_catches_everything_still_runs_each_step_in_its_turn(orders: Database, playing: Play) -> None:
    player = playing(greedy)
    await start(orders, saga=greedy)
    await player.play()
    assert (await player.state(greedy, "17")).state == "completed"
    assert await effects(orders) == ["request", "confirm"]


seen: list[object] = []


@saga("results")
async def results(run: Run, order: PlaceOrder) -> None:
    seen.append(await run.step(reserve_stock, order))
    seen.append(await run.step(request_payment, order))


async def test_a_replayed_step_returns_an_equal_result_of_the_same_class(orders: Database, playing: Play) -> None:
    player = playing(results)
    await start(orders, saga=results)
    await player.play()
    first, *others = [each for each in seen if each]
    assert isinstance(first, Reserved)
    assert others == [first]


@saga("twins")
async def twins(run: Run, order: PlaceOrder) -> None:
    await run.step(request_payment, order)
    await run.step(request_payment, order)


async def test_two_steps_of_one_name_are_refused(orders: Database, playing: Play) -> None:
    player = playing(twins)
    await start(orders, saga=twins)
    with pytest.raises(
        ValueError, match=r"two steps of the saga twins are named 'request_payment': give the second one a name"
    ):
        await player.play()


@saga("parallel")
async def parallel(run: Run, order: PlaceOrder) -> None:
    first = asyncio.create_task(run.step(request_payment, order))
    await asyncio.sleep(0)
    try:
        await run.step(confirm_order, order)
    finally:
        await first


async def test_two_steps_at_a_time_are_refused(orders: Database, playing: Play) -> None:
    player = playing(parallel)
    await start(orders, saga=parallel)
    with pytest.raises(RuntimeError, match="the saga parallel runs two steps at a time: await each step before"):
        await player.play()


@saga("gathering")
async def gathering(run: Run, order: PlaceOrder) -> None:
    await asyncio.gather(run.step(request_payment, order), run.step(confirm_order, order), return_exceptions=True)


async def test_two_steps_at_a_time_are_refused_also_if_the_saga_ignores_the_error(
    orders: Database, playing: Play
) -> None:
    player = playing(gathering)
    await start(orders, saga=gathering)
    with pytest.raises(RuntimeError, match="the saga gathering runs two steps at a time"):
        await player.play()
    assert await effects(orders) == []


@saga("endless")
async def endless(run: Run, order: PlaceOrder) -> None:
    for number in range(MAX_STEPS + 1):
        await run.step(confirm_order, order, name=f"step {number}")


async def test_a_saga_of_too_many_steps_is_refused(orders: Database, playing: Play) -> None:
    player = playing(endless)
    await start(orders, saga=endless)
    with pytest.raises(TooLarge, match="the saga endless has more than 50 steps: let a step start another saga"):
        await player.play()
    assert len((await player.state(endless, "17")).steps) == MAX_STEPS


async def large_result(order: PlaceOrder, uow: UnitOfWork) -> str:
    return "x" * MAX_BYTES


@saga("large")
async def large(run: Run, order: PlaceOrder) -> None:
    await run.step(large_result, order)


async def test_a_result_that_is_too_large_is_refused(orders: Database, playing: Play) -> None:
    player = playing(large)
    await start(orders, saga=large)
    with pytest.raises(
        TooLarge, match="the result of large_result has 16386 bytes as JSON, and a saga records at most 16384"
    ):
        await player.play()


async def secret_result(order: PlaceOrder, uow: UnitOfWork) -> SecretStr:
    await note("secret", uow)
    return SecretStr("hunter2")


async def endless_result(order: PlaceOrder, uow: UnitOfWork) -> float:
    return float("inf")


async def result_without_a_type(order: PlaceOrder, uow: UnitOfWork):
    return Reserved(order.order_id, datetime.now(UTC))


@pytest.mark.parametrize("use_case", [secret_result, endless_result, result_without_a_type])
async def test_a_result_that_json_does_not_bring_back_is_refused(
    orders: Database, playing: Play, use_case: Callable[..., Awaitable[Any]]
) -> None:
    @saga("lossy")
    async def lossy(run: Run, order: PlaceOrder) -> None:
        await run.step(use_case, order)

    player = playing(lossy)
    await start(orders, saga=lossy)
    with pytest.raises(ValueError, match=f"the result of {use_case.__name__} is a .*, which JSON does not bring back:"):
        await player.play()
    assert await effects(orders) == []


@dataclass(frozen=True)
class Token:
    text: SecretStr


@saga("hand-over")
async def hand_over(run: Run, token: Token) -> None: ...


async def test_parameters_and_an_answer_that_json_does_not_bring_back_are_refused(
    orders: Database, playing: Play
) -> None:
    playing(hand_over)
    async with orders.unit_of_work() as uow:
        with pytest.raises(
            ValueError, match="the second argument of start for hand-over is a Token, which JSON does not"
        ):
            await uow.start(hand_over, Token(SecretStr("hunter2")), key="17")
        with pytest.raises(ValueError, match="the answer Token is a Token, which JSON does not bring back"):
            await reply(uow, Token(SecretStr("hunter2")), saga=hand_over, key="17")


@dataclass(eq=False)
class Parcel:
    """A result without `==`: two results with the same fields count as the same result."""

    weight: Decimal
    labels: frozenset[str]


async def weigh(order: PlaceOrder, uow: UnitOfWork) -> list[Parcel]:
    return [Parcel(Decimal("1.50"), frozenset({"fragile", "heavy"}))]


async def test_a_result_is_compared_by_its_fields(orders: Database, playing: Play) -> None:
    @saga("weigh")
    async def weighing(run: Run, order: PlaceOrder) -> None:
        [parcel] = await run.step(weigh, order)
        assert (parcel.weight, parcel.labels) == (Decimal("1.50"), {"fragile", "heavy"})

    player = playing(weighing)
    await start(orders, saga=weighing)
    await player.play()
    assert (await player.state(weighing, "17")).state == "completed"


async def test_parameters_an_answer_and_a_key_that_are_too_large_are_refused(orders: Database) -> None:
    async with orders.unit_of_work() as uow:
        with pytest.raises(TooLarge, match="the second argument of start for place-order has"):
            await uow.start(place_order, PlaceOrder("x" * MAX_BYTES), key="17")
        with pytest.raises(TooLarge, match="the answer CardCharged has"):
            await reply(uow, CardCharged("x" * MAX_BYTES), saga=place_order, key="17")
        for key in ("", "x" * 201, "a\nb"):
            with pytest.raises(ValueError, match="cannot be the key of a saga: write 1 to 200 printable characters"):
                await uow.start(place_order, PlaceOrder("17"), key=key)


@saga("nap")
async def nap(run: Run, order: PlaceOrder) -> None:
    await run.sleep(timedelta(days=3), name="grace period")
    await run.step(confirm_order, order)


async def test_a_saga_sleeps_without_a_connection(orders: Database, playing: Play) -> None:
    player = playing(nap)
    await start(orders, saga=nap)
    await player.play()
    await player.pass_time(timedelta(days=2))
    assert await effects(orders) == []
    await player.pass_time(timedelta(days=1))
    assert await effects(orders) == ["confirm"]


async def test_an_answer_that_comes_before_the_wait_is_read_by_the_wait(orders: Database, player: SagaPlayer) -> None:
    await start(orders)
    await player.reply(CardCharged("early"), saga=place_order, key="17")
    assert await effects(orders) == ["reserve", "request", "confirm"]


async def test_an_answer_of_another_class_is_kept_and_ends_no_wait(orders: Database, player: SagaPlayer) -> None:
    await start(orders)
    await player.play()
    await player.reply(Reserved("17", datetime.now(UTC)), saga=place_order, key="17")
    assert (await player.state(place_order, "17")).state == "waiting"


async def test_answers_to_a_saga_that_has_ended_are_no_errors_however_many_there_are(
    orders: Database, player: SagaPlayer
) -> None:
    await start(orders)
    await player.play()
    await player.reply(CardCharged("r-1"), saga=place_order, key="17")
    await orders.execute("UPDATE chassis.sagas SET answers = (SELECT json_agg(n) FROM generate_series(1, 50) AS n)")
    await player.reply(CardCharged("r-51"), saga=place_order, key="17")
    assert (await player.state(place_order, "17")).state == "completed"


async def test_an_answer_to_no_saga_does_nothing(orders: Database, player: SagaPlayer) -> None:
    await player.reply(CardCharged("r"), saga=place_order, key="nobody")
    assert await orders.fetch("SELECT FROM chassis.outbox") == []


async def test_the_subject_of_the_start_is_the_subject_of_each_step(orders: Database, player: SagaPlayer) -> None:
    async with orders.unit_of_work() as uow:
        uow.subject = "ana"
        await uow.start(place_order, PlaceOrder("17"), key="17")
    await player.play()
    await player.pass_time(LATE)
    rows = await orders.fetch("SELECT DISTINCT subject FROM done")
    assert [row["subject"] for row in rows] == ["ana"]


async def test_a_message_of_a_step_has_the_ids_of_the_inner_and_of_the_outer_saga(
    orders: Database, playing: Play
) -> None:
    outer = str(UUID(int=5))
    player = playing(nap)
    async with orders.unit_of_work() as uow:
        uow.saga = outer
        saga_id = await uow.start(nap, PlaceOrder("17"), key="17")
    await player.play()
    [job] = await orders.fetch("SELECT saga FROM chassis.outbox")
    assert job["saga"] == f"{saga_id},{outer}"


@pytest.mark.parametrize("hostile", ["", "a" * 36, "x", f"{UUID(int=1)},", ",".join([str(UUID(int=1))] * 5), 7])
def test_a_header_that_is_no_list_of_up_to_four_ids_is_ignored(hostile: object) -> None:
    assert as_sagas(hostile) is None
    assert as_sagas(f"{UUID(int=1)},{UUID(int=2)}") == f"{UUID(int=1)},{UUID(int=2)}"


@pytest.mark.parametrize("name", ["PlaceOrder", "place_order", "", "a" * 201])
def test_a_name_that_is_not_in_kebab_case_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a saga: write words in lower case with hyphens"):
        saga(name)


def test_a_function_without_two_annotated_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="the function of the saga short has 1 annotated parameters: write two"):

        @saga("short")
        async def short(run: Run) -> None: ...


def test_two_sagas_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two sagas are named nap: give one of them another name"):
        messages_of(nap, dataclasses.replace(nap, version=2))
