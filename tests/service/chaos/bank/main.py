"""The bank of shop. It refuses some payments, and answers others late or never, although it has charged the card."""

import random
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from chassis.application import application
from chassis.database import Statement, UnitOfWork, metadata_for
from chassis.messages import Contract, Event, Job, Messages, OnEvent, OnJob
from chassis.service import Service
from chassis.settings import Settings
from fastapi import FastAPI

from tests.service.chaos import bank
from tests.service.chaos.shop.contracts import (
    CardChargedV1,
    CardRefusedV1,
    PaymentRequestedV1,
    RefundRequestedV1,
    RemindedV1,
)
from tests.service.chaos.shop.main import WITHIN

NEARLY_LATE = timedelta(seconds=1.5)
KINDS = 8
"""The number of kinds of orders: the bank refuses one kind, answers one kind only after a reminder or never, and answers
two kinds at about the time-out."""

metadata = metadata_for("bank")
bookings = sa.Table(
    "bookings",
    metadata,
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
)
BOOK = Statement(sa.insert(bookings), columns=["number", "kind"])
REFUND = """
    INSERT INTO bank.bookings (number, kind)
    SELECT number, 'refund' FROM bank.bookings WHERE number = $1 AND kind = 'charge' LIMIT 1
"""


@dataclass(frozen=True)
class CardCharged:
    number: int


@dataclass(frozen=True)
class CardRefused:
    number: int


@dataclass(frozen=True)
class AnswerLate:
    number: int


class AnswerLateV1(Contract):
    number: int


async def on_payment_requested(event: PaymentRequestedV1, uow: UnitOfWork) -> None:
    kind = event.number % KINDS
    if kind == 0:
        await uow.publish(CardRefused(event.number))
        return
    await BOOK.run(uow.connection, number=event.number, kind="charge")
    if kind in (2, 3):
        await uow.enqueue(AnswerLate(event.number), after=WITHIN + random.uniform(-1, 1) * NEARLY_LATE)
    elif kind != 1:
        await uow.publish(CardCharged(event.number))


async def on_reminded(event: RemindedV1, uow: UnitOfWork) -> None:
    if event.number % (2 * KINDS) == 1:
        await uow.publish(CardCharged(event.number))


async def on_refund_requested(event: RefundRequestedV1, uow: UnitOfWork) -> None:
    await uow.connection.execute(REFUND, event.number)


async def on_answer_late(job: AnswerLateV1, uow: UnitOfWork) -> None:
    await uow.publish(CardCharged(job.number))


SERVICE = Service(
    name="bank",
    domain="tests",
    description="Charges cards",
    package=bank,
    tables=metadata,
    routers=[],
    messages=Messages(
        "bank",
        outgoing=(
            Event(CardCharged, CardChargedV1, aggregate="order", key="number"),
            Event(CardRefused, CardRefusedV1, aggregate="order", key="number"),
            Job(AnswerLate, AnswerLateV1),
        ),
        incoming=(
            OnEvent("shop.payment-requested.v1", PaymentRequestedV1, on_payment_requested),
            OnEvent("shop.reminded.v1", RemindedV1, on_reminded),
            OnEvent("shop.refund-requested.v1", RefundRequestedV1, on_refund_requested),
            OnJob(AnswerLateV1, on_answer_late),
        ),
    ),
)


def create_app(settings: Settings | None = None) -> FastAPI:
    return application(SERVICE, settings or SERVICE.settings())
