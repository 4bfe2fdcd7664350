"""The messages of the tests' service: one event and one job, and a handler whose behaviour each message chooses."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID

from chassis.database import UnitOfWork
from chassis.messages import Contract, Event, Job, Messages, OnEvent, OnJob
from chassis.telemetry.setup import current_trace_id
from pydantic import Field


@dataclass(frozen=True)
class ThingMade:
    thing_id: UUID
    number: int


@dataclass(frozen=True)
class TidyUp:
    thing_id: UUID


class ThingMadeV1(Contract):
    thing_id: UUID
    number: int


class TidyUpV1(Contract):
    thing_id: UUID


class PaidV1(Contract):
    """An event of another service. `then` is the behaviour of our handler."""

    number: Annotated[int, Field(ge=0)]
    then: Literal["work", "fail", "fail until told", "wait until told"] = "work"


class CountV1(Contract):
    number: int


class MessageLines:
    """A logger that keeps the lines of chassis.messaging.message_log, each with the trace of its context."""

    def __init__(self) -> None:
        self.logged: list[tuple[str | None, ...]] = []

    def info(self, event: str, *, name: str, message_id: str, key: str) -> None:
        self.logged.append((event, name, message_id, key, current_trace_id()))


EFFECTS = "CREATE TABLE IF NOT EXISTS effects (seq bigserial PRIMARY KEY, number integer NOT NULL)"
"""A table without a constraint that would hide an effect that happens twice."""

told = asyncio.Event()
begun: list[int] = []
"""The numbers with which the handler was called, including failed attempts."""
subjects: list[str | None] = []
"""The subjects with which the handler was called."""
handled: list[str | None] = []
"""The ids of messages that the handler of jobs received."""


async def on_paid(event: PaidV1, uow: UnitOfWork) -> None:
    await uow.connection.execute("INSERT INTO effects (number) VALUES ($1)", event.number)
    begun.append(event.number)
    subjects.append(uow.subject)
    if event.then == "wait until told":
        await told.wait()
    if event.then == "fail" or (event.then == "fail until told" and not told.is_set()):
        raise RuntimeError("the handler failed")


async def on_count(job: CountV1, uow: UnitOfWork) -> None:
    handled.append(uow.message_id)
    await uow.connection.execute("INSERT INTO effects (number) VALUES ($1)", job.number)


MESSAGES = Messages(
    "tiny",
    outgoing=(
        Event(ThingMade, ThingMadeV1, aggregate="thing", key="thing_id"),
        Job(TidyUp, TidyUpV1),
    ),
    incoming=(
        OnEvent("bank.paid.v1", PaidV1, on_paid),
        OnJob(CountV1, on_count),
    ),
)
