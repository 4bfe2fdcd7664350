"""A service whose orders are placed by a saga: stock, payment, confirmation."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis.database import UnitOfWork
from chassis.errors import Conflict
from chassis.sagas import Abandon, Run, saga

EFFECTS = "CREATE TABLE IF NOT EXISTS done (seq bigserial PRIMARY KEY, what text NOT NULL, subject text)"
"""A table without a constraint that would hide an effect that happens twice."""

faults: dict[str, BaseException] = {}
"""The error that each use case raises, after its effect."""


class OutOfStock(Conflict):
    code = "out_of_stock"


@dataclass(frozen=True)
class PlaceOrder:
    order_id: str


@dataclass(frozen=True)
class CardCharged:
    receipt: str


@dataclass(frozen=True)
class CardRefused:
    why: str


@dataclass(frozen=True)
class Reserved:
    order_id: str
    at: datetime


async def note(what: str, uow: UnitOfWork) -> None:
    await uow.connection.execute("INSERT INTO done (what, subject) VALUES ($1, $2)", what, uow.subject)
    if what in faults:
        raise faults[what]


async def reserve_stock(order: PlaceOrder, uow: UnitOfWork, *, now: datetime) -> Reserved:
    await note("reserve", uow)
    return Reserved(order.order_id, now)


async def release_stock(order: PlaceOrder, uow: UnitOfWork) -> None:
    await note("release", uow)


async def request_payment(order: PlaceOrder, uow: UnitOfWork) -> None:
    await note("request", uow)


async def refund(order: PlaceOrder, uow: UnitOfWork) -> None:
    await note("refund", uow)


async def confirm_order(order: PlaceOrder, uow: UnitOfWork) -> None:
    await note("confirm", uow)


@saga("place-order")
async def place_order(run: Run, order: PlaceOrder) -> None:
    await run.step(reserve_stock, order, undo=release_stock)
    await run.step(request_payment, order, undo=refund)
    answer = await run.reply(CardCharged | CardRefused, within=timedelta(minutes=5))
    if not isinstance(answer, CardCharged):
        raise Abandon("payment")
    await run.step(confirm_order, order)
