"""Handlers that record their work. No table refuses a second record of the same work."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from chassis import fields
from chassis.application import application
from chassis.database import Statement, UnitOfWork, metadata_for
from chassis.messages import Contract, CurrentState, Event, Job, Messages, OnEvent, OnJob
from chassis.schedules import Schedule
from chassis.service import Service
from chassis.settings import Settings
from fastapi import FastAPI

from tests.service.chaos import clerk

BEAT_SECONDS = 2

metadata = metadata_for("clerk")
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("name", sa.String(40), nullable=False),
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
)
errands = sa.Table("errands", metadata, sa.Column("number", sa.Integer, primary_key=True))
results = sa.Table(
    "results",
    metadata,
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
)
gauges = sa.Table(
    "gauges",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)
arrivals = sa.Table(
    "arrivals",
    metadata,
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("gauge_id", sa.Uuid, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("again", sa.Boolean, nullable=False),
)

RAN = Statement(sa.insert(runs), columns=["name", "due_at"])
DONE = Statement(sa.insert(results), columns=["number"])
ARRIVED = Statement(sa.insert(arrivals), columns=["gauge_id", "version", "again"])
STATES = "SELECT id, version FROM clerk.gauges WHERE id > $1 ORDER BY id LIMIT $2 FOR SHARE"


class EveryBeat(Schedule):
    """A schedule with more due times than cron has, so that many kills hit one of them."""

    @property
    def rule(self) -> str:
        return f"every {BEAT_SECONDS} seconds"

    def next_after(self, moment: datetime) -> datetime:
        return self.last_until(moment) + timedelta(seconds=BEAT_SECONDS)

    def last_until(self, moment: datetime) -> datetime:
        return datetime.fromtimestamp(moment.timestamp() // BEAT_SECONDS * BEAT_SECONDS, UTC)


class MinuteV1(Contract):
    due_at: fields.Timestamp


class BeatV1(Contract):
    due_at: fields.Timestamp


@dataclass(frozen=True)
class Errand:
    number: int
    seconds: float


class ErrandV1(Contract):
    number: int
    seconds: float


@dataclass(frozen=True)
class GaugeMoved:
    gauge_id: UUID
    version: int


class GaugeMovedV1(Contract):
    gauge_id: fields.Identifier
    version: int


async def on_minute(job: MinuteV1, uow: UnitOfWork) -> None:
    await RAN.run(uow.connection, name="minute", due_at=job.due_at)


async def on_beat(job: BeatV1, uow: UnitOfWork) -> None:
    await RAN.run(uow.connection, name="beat", due_at=job.due_at)


async def on_errand(job: ErrandV1, uow: UnitOfWork) -> None:
    await asyncio.sleep(job.seconds)
    await DONE.run(uow.connection, number=job.number)


async def on_gauge_moved(event: GaugeMovedV1, uow: UnitOfWork) -> None:
    again = uow.republished is not None
    await ARRIVED.run(uow.connection, gauge_id=event.gauge_id, version=event.version, again=again)


async def read_gauges(uow: Any, /, *, after: UUID, limit: int) -> Sequence[GaugeMoved]:
    return [GaugeMoved(*row) for row in await uow.connection.fetch(STATES, after, limit)]


SERVICE = Service(
    name="clerk",
    domain="tests",
    description="Works by itself",
    package=clerk,
    tables=metadata,
    routers=[],
    messages=Messages(
        "clerk",
        outgoing=(Job(Errand, ErrandV1), Event(GaugeMoved, GaugeMovedV1, aggregate="gauge", key="gauge_id")),
        incoming=(
            OnJob(MinuteV1, on_minute, schedule=Schedule("* * * * *")),
            OnJob(BeatV1, on_beat, schedule=EveryBeat("* * * * *")),
            # A time limit that only a queue of its own may have.
            OnJob(ErrandV1, on_errand, queue="errands", timeout=timedelta(minutes=6)),
            OnEvent("clerk.gauge-moved.v1", GaugeMovedV1, on_gauge_moved),
        ),
        states=(CurrentState("gauges", read_gauges),),
    ),
)


def create_app(settings: Settings | None = None) -> FastAPI:
    return application(SERVICE, settings or SERVICE.settings())
