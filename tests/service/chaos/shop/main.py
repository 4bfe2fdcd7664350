"""A service whose orders are placed by a saga, with steps that take time and fail at random after their effect.

No table refuses a second record of the same effect. The second version of the saga has one more step at its end.
"""

import asyncio
import os
import random
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from chassis.application import application
from chassis.database import Statement, UnitOfWork, metadata_for
from chassis.database.leadership import HANDOVER_SECONDS
from chassis.messages import Event, Messages, OnEvent
from chassis.sagas import Abandon, Run, Sagas, TimedOut, reply, saga
from chassis.service import Service
from chassis.settings import Settings
from fastapi import FastAPI

from tests.service.chaos import shop
from tests.service.chaos.shop.contracts import (
    CardChargedV1,
    CardRefusedV1,
    PaymentRequestedV1,
    RefundRequestedV1,
    RemindedV1,
)

WITHIN = timedelta(seconds=6)
"""How long an order waits for the bank."""
IDLE = timedelta(seconds=HANDOVER_SECONDS + 1)
"""Longer than a change of leaders, as in production: otherwise a crash of a relay would double the jobs of all sagas."""
LONGEST_STEP_SECONDS = 0.2
FAILING_SHARE = 0.02

metadata = metadata_for("shop")
done = sa.Table(
    "done",
    metadata,
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("what", sa.String(20), nullable=False),
)
DONE = Statement(sa.insert(done), columns=["number", "what"])


@dataclass(frozen=True)
class PlaceOrder:
    number: int


@dataclass(frozen=True)
class PaymentRequested:
    number: int


@dataclass(frozen=True)
class Reminded:
    number: int


@dataclass(frozen=True)
class RefundRequested:
    number: int


async def note(order: PlaceOrder, what: str, uow: UnitOfWork) -> None:
    await DONE.run(uow.connection, number=order.number, what=what)
    await asyncio.sleep(random.uniform(0, LONGEST_STEP_SECONDS))
    if random.random() < FAILING_SHARE:
        raise RuntimeError(f"{what} fails now and then")


async def reserve_stock(order: PlaceOrder, uow: UnitOfWork) -> None:
    await note(order, "reserve", uow)


async def release_stock(order: PlaceOrder, uow: UnitOfWork) -> None:
    await note(order, "release", uow)


async def request_payment(order: PlaceOrder, uow: UnitOfWork) -> None:
    await uow.publish(PaymentRequested(order.number))
    await note(order, "request", uow)


async def remind_bank(order: PlaceOrder, uow: UnitOfWork) -> None:
    await uow.publish(Reminded(order.number))
    await note(order, "remind", uow)


async def refund(order: PlaceOrder, uow: UnitOfWork) -> None:
    await uow.publish(RefundRequested(order.number))
    await note(order, "refund", uow)


async def confirm_order(order: PlaceOrder, uow: UnitOfWork) -> None:
    await note(order, "confirm", uow)


async def notify(order: PlaceOrder, uow: UnitOfWork) -> None:
    await note(order, "notify", uow)


async def place_order(run: Run, order: PlaceOrder) -> None:
    await run.step(reserve_stock, order, undo=release_stock)
    await run.step(request_payment, order, undo=refund)
    answer = await run.reply(CardChargedV1 | CardRefusedV1, within=WITHIN)
    if isinstance(answer, TimedOut):
        await run.step(remind_bank, order)
        answer = await run.reply(CardChargedV1 | CardRefusedV1, within=WITHIN, name="answer to reminder")
    if not isinstance(answer, CardChargedV1):
        raise Abandon("payment")
    await run.step(confirm_order, order)


async def place_order_and_notify(run: Run, order: PlaceOrder) -> None:
    await place_order(run, order)
    if run.version >= 2:
        await run.step(notify, order)


async def on_card_charged(event: CardChargedV1, uow: UnitOfWork) -> None:
    await reply(uow, event)


async def on_card_refused(event: CardRefusedV1, uow: UnitOfWork) -> None:
    await reply(uow, event)


def messages_of(version: int) -> Messages:
    """Return the messages of this version of the service."""
    function = place_order_and_notify if version >= 2 else place_order
    sagas = Sagas([saga("place-order", version=version)(function)], idle=IDLE, keep=timedelta(days=1))
    return Messages(
        "shop",
        outgoing=(
            Event(PaymentRequested, PaymentRequestedV1, aggregate="order", key="number"),
            Event(Reminded, RemindedV1, aggregate="order", key="number"),
            Event(RefundRequested, RefundRequestedV1, aggregate="order", key="number"),
            *sagas.outgoing,
        ),
        incoming=(
            OnEvent("bank.card-charged.v1", CardChargedV1, on_card_charged),
            OnEvent("bank.card-refused.v1", CardRefusedV1, on_card_refused),
            *sagas.incoming,
        ),
        sagas=sagas,
    )


SERVICE = Service(
    name="shop",
    domain="tests",
    description="Sells",
    package=shop,
    tables=metadata,
    routers=[],
    messages=messages_of(int(os.environ.get("SHOP_VERSION", "1"))),
)


def create_app(settings: Settings | None = None) -> FastAPI:
    return application(SERVICE, settings or SERVICE.settings())
