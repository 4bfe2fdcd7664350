"""`python -m <service> republish NAME`: publish the current state of all aggregates of a kind again, for a new consumer.

Each batch is one transaction: it keeps its aggregates unchanged while it stores their events, so an event of a later change
comes after the event of the state. Consumers ignore a state whose version they know already. A second run repeats all events.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from chassis.database import Database, DatabaseUnavailable
from chassis.messages import CurrentState, Messages
from chassis.messaging.outbox import Outbox
from chassis.service import Service
from chassis.settings import CommandSettings
from chassis.telemetry import logs

BATCH = 100
MOST_WAITING = 1000
"""With more messages in the outbox, the command waits, so that new events are not delayed for long."""
LOOK_SECONDS = 1
FIRST = UUID(int=0)

_WAITING = """
    SELECT (SELECT count(*) FROM (
        SELECT FROM chassis.outbox WHERE waits_for IS NULL AND not_before IS NULL LIMIT $1
    ) AS main) + (SELECT count(*) FROM (SELECT FROM chassis.outbox WHERE waits_for IS NOT NULL LIMIT $1) AS held_up)
"""


@dataclass
class Progress:
    """How far a run has come."""

    run: str = field(default_factory=lambda: str(uuid7()))
    published: int = 0
    last: UUID = FIRST
    complete: bool = False


def add_arguments(parser: argparse.ArgumentParser, service: Service) -> None:
    known = [state.name for state in service.messages.states]
    parser.add_argument(
        "name", choices=known, metavar="NAME", help=f"one of: {', '.join(known) or 'none in this service'}"
    )
    parser.add_argument(
        "--per-second", type=_rate, default=100, help="at most so many events per second (default %(default)s)"
    )
    parser.add_argument("--after", type=UUID, default=FIRST, metavar="ID", help="go on behind this id")


def _rate(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100000")
    return int(text)


def run(service: Service, settings: CommandSettings, options: argparse.Namespace) -> int:
    """Publish, and print the progress. Returns the exit status: 0 only if all states were published."""
    logs.configure(format=settings.log_format, level="error", service=service.name)
    progress = Progress(last=options.after)
    try:
        asyncio.run(_run(service, settings, options, progress))
    except (DatabaseUnavailable, asyncpg.PostgresError) as error:
        print(f"{service.name}: {error}", file=sys.stderr)
    end = "" if progress.complete else f"; go on with: republish {options.name} --after {progress.last}"
    print(f"{progress.published} {options.name} published again, in the run {progress.run}{end}")
    return 0 if progress.complete else 1


async def _run(service: Service, settings: CommandSettings, options: argparse.Namespace, progress: Progress) -> None:
    (state,) = [state for state in service.messages.states if state.name == options.name]
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Database(
        settings.database_url,
        pool_size=1,
        name=f"{service.name}-republish",
        command_timeout_seconds=settings.message_timeout_seconds,
        outbox=Outbox(service.messages),
        transaction_pooler=settings.database_transaction_pooler,
        versions=service.versions,
    ) as database:
        await publish(database, service.messages, state, progress, per_second=options.per_second, stop=stop)


async def publish(
    database: Database,
    messages: Messages,
    state: CurrentState,
    progress: Progress,
    *,
    per_second: int,
    stop: asyncio.Event,
) -> None:
    """Publish all states behind `progress.last`, until `stop`. Raises DatabaseUnavailable."""
    outbox = Outbox(messages)
    limit = min(BATCH, per_second)
    clock = asyncio.get_running_loop()
    while not stop.is_set():
        began_at = clock.time()
        await _until_sent(database, stop)
        async with database.unit_of_work() as uow:
            events = await state.read(uow, after=progress.last, limit=limit)
            await outbox.publish(uow.connection, events, run=progress.run)
        if not events:
            progress.complete = True
            return
        progress.last = _key_of(messages, events)
        progress.published += len(events)
        print(f"{progress.published} {state.name}, up to {progress.last}", file=sys.stderr)
        await _sleep(stop, began_at + len(events) / per_second - clock.time())


def _key_of(messages: Messages, events: Sequence[Any]) -> UUID:
    """Return the key of the last event, which the next batch begins after."""
    key = messages.routes[type(events[-1])][0].key
    assert key is not None, "an event has a key"
    return getattr(events[-1], key)


async def _until_sent(database: Database, stop: asyncio.Event) -> None:
    """Wait until the relay has sent most of what waits in the outbox."""
    waited = False
    while not stop.is_set():
        ((waiting,),) = await database.fetch(_WAITING, MOST_WAITING)
        if waiting < MOST_WAITING:
            return
        if not waited:
            print(
                f"{waiting} messages or more wait in the outbox: waiting until the worker has sent them",
                file=sys.stderr,
            )
        waited = True
        await _sleep(stop, LOOK_SECONDS)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), max(0, seconds))
