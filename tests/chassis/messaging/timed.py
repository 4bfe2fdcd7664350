"""The tests' service with a job that has a schedule.

`python -m … URL` is a worker of the service that hangs between the enqueued job and the commit. It prints `enqueued`, and waits to
be killed.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Any

from chassis import fields
from chassis.database import Database, Executor, UnitOfWork
from chassis.messages import Contract, Messages, OnJob
from chassis.messaging.outbox import Outbox
from chassis.messaging.scheduler import Scheduler
from chassis.schedules import Schedule
from chassis.telemetry.setup import Telemetry
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from pydantic import SecretStr

NIGHTLY = Schedule("30 2 * * *", zone="Europe/Berlin")
YEARLY = Schedule("0 0 1 1 *")
NAME = "tiny.close-day.v1"
SILENT = Telemetry(Resource({}), sampler=ALWAYS_OFF, span_processors=[], metric_readers=[])


class CloseDayV1(Contract):
    due_at: fields.Timestamp


async def on_close_day(job: CloseDayV1, uow: UnitOfWork) -> None:
    await uow.connection.execute("INSERT INTO closed (due_at) VALUES ($1)", job.due_at)


def messages(schedule: Schedule = NIGHTLY) -> Messages:
    return Messages("tiny", incoming=(OnJob(CloseDayV1, on_close_day, schedule=schedule),))


def database_of(url: str, outbox: Outbox) -> Database:
    return Database(SecretStr(url), pool_size=10, name="tiny", command_timeout_seconds=60, outbox=outbox)


class HangingOutbox(Outbox):
    async def enqueue(self, executor: Executor, job: object, *, after: timedelta, **options: Any) -> None:
        await super().enqueue(executor, job, after=after, **options)
        sys.stdout.write("enqueued\n")
        sys.stdout.flush()
        await asyncio.sleep(600)


async def hang(url: str) -> None:
    async with database_of(url, HangingOutbox(messages())) as database:
        await Scheduler(database, messages(), SILENT).look()


if __name__ == "__main__":
    asyncio.run(hang(sys.argv[1]))
