"""A saga and the service that answers it, with a real broker between them."""

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex
from uuid import uuid4

import pytest
from chassis.application import worker
from chassis.brokers import SAGA, Broker, Kind, Message, Options, Topology, broker_for
from chassis.database import Database, UnitOfWork
from chassis.messages import Contract, Job, OnEvent
from chassis.messaging.outbox import Outbox
from chassis.sagas import Abandon, Run, reply, saga
from chassis.service import Service
from pydantic import SecretStr

from tests.chassis.each_broker import Run as RunBroker
from tests.chassis.each_broker import each_of
from tests.chassis.sagas.ordering import CardCharged, PlaceOrder, confirm_order, refund
from tests.chassis.sagas.players import effects, messages_of
from tests.support.waiting import until


@dataclass(frozen=True)
class ChargeCard:
    order_id: str


class ChargeCardV1(Contract):
    order_id: str


class CardChargedV1(Contract):
    receipt: str


async def charge(order: PlaceOrder, uow: UnitOfWork) -> None:
    await uow.enqueue(ChargeCard(order.order_id))


@saga("pay")
async def pay(run: Run, order: PlaceOrder) -> None:
    await run.step(charge, order, undo=refund)
    answer = await run.reply(CardCharged, within=timedelta(minutes=5))
    if not isinstance(answer, CardCharged):
        raise Abandon("no answer")
    await run.step(confirm_order, order)


async def on_card_charged(event: CardChargedV1, uow: UnitOfWork) -> None:
    await reply(uow, CardCharged(event.receipt))


@asynccontextmanager
async def payments(url: str, name: str) -> AsyncGenerator[Broker]:
    """The broker as the other service has it."""
    broker = broker_for(Options(SecretStr(url), name))
    await broker.connect()
    await broker.declare(
        Topology(
            name,
            published_events=frozenset([f"{name}.card-charged.v1"]),
            accepted_jobs=frozenset([f"{name}.charge-card.v1"]),
        )
    )
    try:
        yield broker
    finally:
        await broker.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", each_of("nats"))
async def test_an_event_that_passes_the_header_on_answers_the_saga(
    name: str, run: RunBroker, service: Service, database_url: str, orders: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, suffix = run(name).url, token_hex(4)
    other = f"payments-{suffix}"
    found = messages_of(pay)
    messages = dataclasses.replace(
        found,
        service=f"orders-{suffix}",
        outgoing=(*found.outgoing, Job(ChargeCard, ChargeCardV1, to=other)),
        incoming=(*found.incoming, OnEvent(f"{other}.card-charged.v1", CardChargedV1, on_card_charged)),
    )
    ordering = dataclasses.replace(service, name=f"orders-{suffix}", messages=messages)
    monkeypatch.setattr(orders, "_outbox", Outbox(messages))
    settings = ordering.settings.model_validate({"database_url": database_url, "broker_url": url})
    async with payments(url, other) as broker:
        async with orders.unit_of_work() as uow:
            saga_id = await uow.start(pay, PlaceOrder("17"), key="17")
        app = worker(ordering, settings)
        async with app.router.lifespan_context(app):
            jobs = await broker.subscribe(Kind.JOB)
            [job] = await until(lambda: jobs.fetch(1, wait_seconds=1))
            assert job.message.headers[SAGA] == str(saga_id)
            answer = Message(
                Kind.EVENT, f"{other}.card-charged.v1", str(uuid4()), "17", b'{"receipt": "r-1"}', job.message.headers
            )
            for _ in range(2):
                await broker.publish(answer)
            await until(lambda: orders.fetch("SELECT FROM chassis.sagas WHERE state = 'completed'"))
            await jobs.acknowledge([job])
            await jobs.close()
    assert await effects(orders) == ["confirm"]
    await orders.execute("DELETE FROM chassis.leaders")
