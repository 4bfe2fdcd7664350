"""`python -m <service> messages`: what is in the outbox, in the broker and in the inbox of one service."""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Any

from chassis.brokers import BrokerUnavailable, Options
from chassis.brokers.inspection import inspect
from chassis.database import Database, DatabaseUnavailable
from chassis.messaging import overview
from chassis.messaging.topology import topology_of
from chassis.service import Service
from chassis.settings import BrokerSettings
from chassis.telemetry import logs
from chassis.telemetry.printable import printable

QUERY_SECONDS = 10
BODY_CHARACTERS = 500


def add_arguments(parser: argparse.ArgumentParser, _: Service) -> None:
    parser.add_argument("--format", choices=["text", "json"], default="text", help="default: %(default)s")
    parser.add_argument(
        "--limit", type=_limit, default=10, help="at most so many lines in each part, 1 to 1000 (default %(default)s)"
    )
    parser.add_argument(
        "--bodies",
        action="store_true",
        help=f"show the first {BODY_CHARACTERS} characters of each waiting message: they may hold data of persons",
    )


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def run(service: Service, settings: BrokerSettings, options: argparse.Namespace) -> int:
    """Print the overview. Returns the exit status: 1 if the database or the broker did not answer."""
    logs.configure(format=settings.log_format, level="error", service=service.name)
    try:
        found, complete = asyncio.run(_look(service, settings, options))
    except DatabaseUnavailable as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        return 1
    as_json = options.format == "json"
    print(json.dumps(found, indent=2, default=datetime.isoformat) if as_json else "\n".join(_lines(found)))
    return 0 if complete else 1


async def _look(service: Service, settings: BrokerSettings, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Return the overview, and whether the broker is in it."""
    database = Database(
        settings.database_url,
        pool_size=1,
        name=f"{service.name}-messages",
        command_timeout_seconds=QUERY_SECONDS,
        transaction_pooler=settings.database_transaction_pooler,
        versions=service.versions,
    )
    async with database, database.connection() as connection:
        body_characters = BODY_CHARACTERS if options.bodies else 0
        outbox = await overview.of_outbox(connection, limit=options.limit, body_characters=body_characters)
        inbox = await overview.of_inbox(connection, limit=options.limit)
        parked = await overview.of_parked(connection)
    streams, problem = await _streams(service, settings)
    found = {"outbox": outbox, "streams": streams, "inbox": inbox, "parked": parked}
    if problem:
        print(f"{service.name}: {problem}", file=sys.stderr)
    return found, not problem


async def _streams(service: Service, settings: BrokerSettings) -> tuple[list[dict[str, Any]], str]:
    """Return the state of the streams, or why it is unknown."""
    if settings.broker_url is None:
        return [], "the streams are unknown, because BROKER_URL is not set"
    topology = topology_of(service.messages)
    try:
        found = await inspect(Options(settings.broker_url, f"{service.name}-messages"), topology)
    except BrokerUnavailable as error:
        return [], f"the streams are unknown, because the broker does not answer: {printable(str(error))}"
    return [asdict(stream) for stream in found], ""


def _lines(found: dict[str, Any]) -> list[str]:
    outbox, inbox, parked = found["outbox"], found["inbox"], found["parked"]
    return [
        f"outbox: {_counted(outbox['messages'])} to be sent",
        *(f"  {_name_line(row)}" for row in outbox["names"]),
        *(["", "  the first of them:"] if outbox["first"] else []),
        *(f"  {_row_line(row)}" for row in outbox["first"]),
        "",
        "streams, topics or queues:",
        *(f"  {_stream_line(stream)}" for stream in found["streams"]),
        "",
        f"inbox: {_counted(inbox['messages'])} received, the latest first",
        *(
            f"  {_time(row['received_at'])}  {printable(row['name'])}  {printable(row['id'])}"
            for row in inbox["latest"]
        ),
        "",
        f"parked: {parked['incoming']} incoming, {parked['outgoing']} outgoing (see the command `parked`)",
    ]


def _counted(messages: int) -> str:
    if messages == overview.COUNTED:
        return f"{messages} messages or more"
    return f"{messages} message{'' if messages == 1 else 's'}"


def _name_line(row: dict[str, Any]) -> str:
    later = f", {row['not_due']} not due yet" if row["not_due"] else ""
    held_up = f", {row['held_up']} held up by a destination that takes nothing" if row["held_up"] else ""
    name, kind = printable(row["name"]), row["kind"]
    return f"{name}  {row['messages']} {kind}{'' if row['messages'] == 1 else 's'} since {_time(row['oldest'])}{later}{held_up}"


def _row_line(row: dict[str, Any]) -> str:
    facts = [_time(row["created_at"]), row["name"], row["id"], f"key={row['key']}"]
    if row["not_before"]:
        facts.append(f"due={_time(row['not_before'])}")
    if row["held_up_by"]:
        facts.append(f"held_up_by={row['held_up_by']}")
    if row["trace_id"]:
        facts.append(f"trace={row['trace_id']}")
    if "body" in row:
        facts.append(row["body"])
    return "  ".join(map(printable, facts))


def _stream_line(stream: dict[str, Any]) -> str:
    if not stream["exists"]:
        return f"{stream['name']}  does not exist yet"
    facts = [f"{stream['messages']} kept"]
    if stream["waiting"] is not None:
        facts.append(f"{stream['waiting']} not received")
    if stream["unacknowledged"]:
        facts.append(f"{stream['unacknowledged']} received and not finished")
    return f"{stream['name']}  {', '.join(facts)}"


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
