"""Schedules: their due times, and one job for each due time whatever number of workers runs, stops or crashes."""

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from chassis import fields
from chassis.application import worker
from chassis.brokers import Kind
from chassis.database import Database
from chassis.messages import Contract, Job, Messages, OnJob
from chassis.messaging.gauges import Gauges
from chassis.messaging.outbox import Outbox
from chassis.messaging.scheduler import LOOK_SECONDS, Scheduler, overdue_seconds
from chassis.schedules import Schedule
from chassis.service import Service
from chassis.settings import Settings
from pydantic import SecretStr
from structlog.testing import CapturingLogger

from tests.chassis.memory_broker import MemoryBroker
from tests.chassis.messaging.timed import NAME, NIGHTLY, SILENT, YEARLY, CloseDayV1, database_of, messages, on_close_day
from tests.support.paths import ROOT
from tests.support.waiting import until

# --- due times --------------------------------------------------------------------------------------------------------


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "due"),
    [
        ("2026-01-10 01:29", "2026-01-10 01:30"),
        ("2026-01-10 01:30", "2026-01-11 01:30"),
        ("2026-03-28 12:00", "2026-03-29 01:00"),  # the clock goes from 2:00 to 3:00
        ("2026-03-29 01:00", "2026-03-30 00:30"),
        ("2026-10-24 12:00", "2026-10-25 00:30"),  # the clock shows 2:30 a second time an hour later
        ("2026-10-25 00:30", "2026-10-26 01:30"),
        ("2026-10-25 01:10", "2026-10-26 01:30"),
    ],
)
def test_a_nightly_job_is_due_once_each_night_also_when_the_clocks_change(moment: str, due: str) -> None:
    assert NIGHTLY.next_after(utc(moment)) == utc(due)


@pytest.mark.parametrize(
    ("moment", "due"),
    [
        ("2026-01-10 01:30", "2026-01-10 01:30"),
        ("2026-01-10 01:29", "2026-01-09 01:30"),
        ("2026-03-29 06:00", "2026-03-29 01:00"),
        ("2026-10-25 00:30", "2026-10-25 00:30"),
        ("2026-10-25 01:10", "2026-10-25 00:30"),
    ],
)
def test_the_last_due_time_is_known_after_any_pause(moment: str, due: str) -> None:
    assert NIGHTLY.last_until(utc(moment)) == utc(due)


def test_an_hourly_job_is_due_in_both_hours_that_the_clock_shows_alike() -> None:
    hourly, moment, found = Schedule("0 * * * *", zone="Europe/Berlin"), utc("2026-10-24 22:30"), []
    for _ in range(4):
        found.append(moment := hourly.next_after(moment))
    assert [due.hour for due in found] == [23, 0, 1, 2]


@pytest.mark.parametrize(
    ("cron", "zone", "reason"),
    [
        ("0 3 * *", "UTC", "'0 3 \\* \\*' has 4 fields: write the five fields of cron"),
        ("0 3 * * * *", "UTC", "has 6 fields"),
        ("@daily", "UTC", "write the five fields of cron"),
        ("61 3 * * *", "UTC", "Bad minute"),
        ("0 0 31 2 *", "UTC", "cannot be read .*: write it as in 0 3"),
        ("0 3 * * *", "Europe/Atlantis", "'Europe/Atlantis' is no time zone of this machine: write a name of the IANA"),
        ("0 3 * * *", "", "is no time zone"),
        ("0 3 * * *", "../../etc/passwd", "is no time zone"),
    ],
)
def test_a_schedule_that_names_no_time_is_refused_with_the_remedy(cron: str, zone: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Schedule(cron, zone=zone)


def test_a_job_with_a_schedule_is_sent_and_processed_by_the_service_itself() -> None:
    assert [(route.kind, route.name) for route in messages().routes[CloseDayV1]] == [("job", NAME)]
    assert list(messages().receivers) == [NAME]


def test_a_contract_that_is_not_made_from_a_due_time_alone_is_refused() -> None:
    class WithoutV1(Contract):
        pass

    class MoreV1(Contract):
        due_at: fields.Timestamp
        customer: str

    class FineV1(Contract):
        due_at: fields.Timestamp
        limit: int = 100

    for contract in (WithoutV1, MoreV1):
        with pytest.raises(ValueError, match=f"{contract.__name__} is the contract of a job with a schedule.*due_at"):
            Messages("tiny", incoming=(OnJob(contract, on_close_day, schedule=YEARLY),))
    assert list(Messages("tiny", incoming=(OnJob(FineV1, on_close_day, schedule=YEARLY),)).schedules) == [
        "tiny.fine.v1"
    ]


def test_a_job_with_a_schedule_has_no_second_line_in_outgoing() -> None:
    with pytest.raises(ValueError, match=f"{NAME} has two lines"):
        Messages("tiny", (Job(dict, CloseDayV1),), (OnJob(CloseDayV1, on_close_day, schedule=YEARLY),))


# --- workers ----------------------------------------------------------------------------------------------------------


class Bench:
    """Schedulers of the tests' service on a real database."""

    def __init__(self, connection: asyncpg.Connection, database: Database) -> None:
        self.connection = connection
        self.database = database

    def scheduler(self, schedule: Schedule = NIGHTLY) -> Scheduler:
        return Scheduler(self.database, messages(schedule), SILENT)

    async def overdue(self, *, by: timedelta = timedelta(seconds=1)) -> None:
        """Make the job overdue: set the due time of its row to `by` before now."""
        await self.connection.execute("UPDATE chassis.schedules SET next_at = now() - $1::interval", by)

    async def overdue_rule(self, schedule: Schedule, *, by: timedelta = timedelta(seconds=1)) -> None:
        """Make the row with this rule overdue: set its due time to `by` before now."""
        await self.connection.execute(
            "UPDATE chassis.schedules SET next_at = now() - $1::interval WHERE rule = $2", by, schedule.rule
        )

    async def next_at(self) -> datetime:
        return await self.connection.fetchval("SELECT next_at FROM chassis.schedules")

    async def now(self) -> datetime:
        return await self.connection.fetchval("SELECT now()")

    async def jobs(self) -> list[str]:
        rows = await self.connection.fetch("SELECT payload FROM chassis.outbox ORDER BY seq")
        return [row["payload"] for row in rows]


@pytest.fixture
async def bench(database_url: str, connection: asyncpg.Connection) -> AsyncGenerator[Bench]:
    async with database_of(database_url, Outbox(messages())) as database:
        yield Bench(connection, database)
    await connection.execute("DELETE FROM chassis.schedules; DELETE FROM chassis.outbox")


async def test_a_new_schedule_waits_for_its_first_due_time(bench: Bench) -> None:
    pause = await bench.scheduler().look()
    assert await bench.jobs() == []
    assert await bench.next_at() == NIGHTLY.next_after(await bench.now())
    assert 0 < pause <= LOOK_SECONDS


async def test_a_due_job_is_enqueued_once_by_many_workers(bench: Bench) -> None:
    workers = [bench.scheduler(YEARLY) for _ in range(8)]
    await asyncio.gather(*(one.look() for one in workers))
    for _ in range(3):
        await bench.overdue()
        await asyncio.gather(*(one.look() for one in workers))
    jobs = await bench.jobs()
    assert len(jobs) == 3
    assert await bench.next_at() == YEARLY.next_after(await bench.now())


async def test_due_times_that_passed_while_no_worker_ran_are_one_job_for_the_last_due_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.messaging.scheduler.log", logged := CapturingLogger())
    await bench.scheduler().look()
    await bench.overdue(by=timedelta(days=400))
    await bench.scheduler().look()
    last = NIGHTLY.last_until(await bench.now())
    assert await bench.jobs() == [CloseDayV1(due_at=last).model_dump_json()]
    (call,) = logged.calls
    assert (call.args, call.kwargs["name"], call.kwargs["due_at"]) == (("job_scheduled",), NAME, last.isoformat())
    assert 0 <= call.kwargs["late_seconds"] < 86_400


async def test_a_changed_schedule_counts_from_now_and_loses_no_time_that_has_come(bench: Bench) -> None:
    await bench.scheduler(YEARLY).look()
    await bench.overdue(by=timedelta(hours=1))
    due = await bench.next_at()
    for _ in range(2):
        await bench.scheduler(NIGHTLY).look()
        assert await bench.jobs() == [CloseDayV1(due_at=due).model_dump_json()]
        assert await bench.next_at() == NIGHTLY.next_after(await bench.now())


async def test_each_version_keeps_its_due_times_during_a_release_that_changes_the_schedule(bench: Bench) -> None:
    before, after = bench.scheduler(YEARLY), bench.scheduler(NIGHTLY)
    for version in (before, after, before):
        await version.look()
    await bench.overdue_rule(NIGHTLY)
    await before.look()
    assert await bench.jobs() == []
    await after.look()
    await before.look()
    due = [NIGHTLY.last_until(await bench.now())]
    assert await bench.jobs() == [CloseDayV1(due_at=each).model_dump_json() for each in due]
    await bench.overdue_rule(YEARLY)
    await after.look()
    await before.look()
    due.append(YEARLY.last_until(await bench.now()))
    assert await bench.jobs() == [CloseDayV1(due_at=each).model_dump_json() for each in due]


async def test_the_row_of_a_rule_that_no_version_has_goes_after_a_day_and_is_not_reported_as_overdue(
    bench: Bench,
) -> None:
    await bench.scheduler(YEARLY).look()
    await bench.scheduler(NIGHTLY).look()
    await bench.overdue_rule(YEARLY, by=timedelta(hours=23))
    await bench.scheduler(NIGHTLY).look()
    assert await overdue_seconds(bench.connection, messages(NIGHTLY).schedules) == 0
    assert await overdue_seconds(bench.connection, messages(YEARLY).schedules) > 0
    await bench.overdue_rule(YEARLY, by=timedelta(hours=25))
    await bench.scheduler(NIGHTLY).look()
    assert await bench.connection.fetchval("SELECT array_agg(rule) FROM chassis.schedules") == [NIGHTLY.rule]
    assert await bench.jobs() == []


async def test_a_schedule_that_comes_back_does_not_run_for_the_time_in_which_there_was_none(bench: Bench) -> None:
    await bench.scheduler().look()
    await bench.overdue(by=timedelta(hours=30))
    await Scheduler(bench.database, Messages("tiny"), SILENT).look()
    assert await bench.next_at() is None
    await bench.scheduler().look()
    assert await bench.jobs() == []


async def test_a_row_of_a_replica_of_another_version_stays_for_a_day(bench: Bench) -> None:
    await bench.scheduler().look()
    await bench.overdue(by=timedelta(hours=3))
    await Scheduler(bench.database, Messages("tiny"), SILENT).look()
    await bench.scheduler().look()
    assert len(await bench.jobs()) == 1


@pytest.mark.slow
async def test_a_worker_that_is_killed_before_its_commit_leaves_the_job_to_the_other_worker(
    bench: Bench, database_url: str
) -> None:
    await bench.scheduler().look()
    await bench.overdue()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chassis.messaging.timed", database_url, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"enqueued\n"
    waiting = asyncio.create_task(bench.scheduler().look())
    await asyncio.sleep(0.1)
    assert not waiting.done()  # the other worker holds the row
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await asyncio.wait_for(waiting, 60)
    assert len(await bench.jobs()) == 1


async def test_an_overdue_schedule_counts_as_a_message_that_waits(bench: Bench, database_url: str) -> None:
    await bench.scheduler().look()
    await bench.overdue(by=timedelta(hours=2))
    gauges = Gauges(messages(), bench.database, SILENT, Settings(database_url=SecretStr(database_url)))
    task = asyncio.create_task(gauges.run(asyncio.Event()))
    await until(lambda: gauges.oldest_seconds > 0)
    task.cancel()
    assert 7200 <= gauges.oldest_seconds < 7300


async def test_two_workers_have_the_effect_of_each_due_time_once(
    service: Service, database_url: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.messaging.worker.broker_for", MemoryBroker)
    await bench.connection.execute("CREATE TABLE closed (due_at timestamptz NOT NULL)")
    timed = dataclasses.replace(service, messages=messages())
    await bench.scheduler().look()
    await bench.overdue(by=timedelta(hours=1))
    settings = timed.settings.model_validate({"database_url": database_url, "broker_url": f"nats://{uuid4()}"})
    try:
        first, second = worker(timed, settings), worker(timed, settings)
        async with first.router.lifespan_context(first), second.router.lifespan_context(second):
            await until(lambda: bench.connection.fetchval("SELECT count(*) > 0 FROM closed"))
            await until(lambda: bench.connection.fetchval("SELECT count(*) = 0 FROM chassis.outbox"))
        assert await bench.connection.fetchval("SELECT count(*) FROM closed") == 1
        assert [consumer.kind for consumer in first.state.parts[0].worker._consumers] == [Kind.JOB]
    finally:
        await bench.connection.execute("DROP TABLE closed; DELETE FROM chassis.inbox; DELETE FROM chassis.leaders")
