"""`python -m <service> parked list | show ID | replay ID | drop ID`: how a person handles messages that failed."""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from uuid import UUID

from pydantic import ValidationError

from chassis.database import Database, DatabaseUnavailable
from chassis.messaging import parking
from chassis.messaging.outbox import Outbox
from chassis.messaging.parking import NotParked, Parked
from chassis.service import Service
from chassis.settings import CommandSettings
from chassis.telemetry import logs
from chassis.telemetry.printable import printable, printable_lines


def add_arguments(parser: argparse.ArgumentParser, _: Service) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="one line for each, the longest parked first")
    listing.add_argument("--name", help="only messages of this name, such as billing.invoice-issued.v1")
    listing.add_argument("--limit", type=int, default=100, help="at most so many (default %(default)s)")
    listing.add_argument("--format", choices=["text", "json"], default="text", help="default %(default)s")
    showing = actions.add_parser("show", help="all of one: reason, headers, body")
    replaying = actions.add_parser("replay", help="handle it now (incoming) or send it again (outgoing), and unpark it")
    dropping = actions.add_parser("drop", help="print it, and remove it for good")
    showing.add_argument("id", type=UUID, nargs="+", help="as `list` shows it")
    for action in (replaying, dropping):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("id", type=UUID, nargs="*", default=[], help="as `list` shows it")
        which.add_argument("--name", help="all messages of this name, the longest parked first")


def run(service: Service, settings: CommandSettings, options: argparse.Namespace) -> int:
    """Run the chosen action. Returns the exit status: 0 only if it worked for every message."""
    logs.configure(format=settings.log_format, level="error", service=service.name)
    return asyncio.run(_run(service, settings, options))


async def _run(service: Service, settings: CommandSettings, options: argparse.Namespace) -> int:
    database = Database(
        settings.database_url,
        pool_size=1,
        name=f"{service.name}-parked",
        command_timeout_seconds=_longest(service, settings),
        outbox=Outbox(service.messages),
        transaction_pooler=settings.database_transaction_pooler,
        versions=service.versions,
    )
    try:
        async with database:
            if options.action == "list":
                return await _list(database, options)
            actions: dict[str, Callable[[UUID], Awaitable[Parked]]] = {
                "show": lambda parked_id: parking.show(database, parked_id),
                "replay": lambda parked_id: parking.replay(database, service.messages, parked_id),
                "drop": lambda parked_id: parking.drop(database, parked_id),
            }
            chosen = options.id or await _of_name(database, options.name)
            return max([await _one(actions[options.action], options.action, each) for each in chosen], default=0)
    except DatabaseUnavailable as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        return 1


def _longest(service: Service, settings: CommandSettings) -> float:
    """Return the time limit of the slowest handler: `replay` may run any of them."""
    queues = ["", *service.messages.queues]
    return max(settings.message_timeout_seconds, service.messages.longest_timeout(queues))


def _as_json(parked: Parked) -> dict[str, str]:
    return {
        "id": str(parked.id),
        "parked_at": parked.parked_at.isoformat(),
        "direction": parked.direction,
        "name": parked.message.name,
        "reason": parked.reason,
    }


async def _list(database: Database, options: argparse.Namespace) -> int:
    found = await parking.find(database, name=options.name, limit=options.limit)
    if options.format == "json":
        print(json.dumps([_as_json(parked) for parked in found], indent=2))
        return 0
    for parked in found:
        when = parked.parked_at.isoformat(timespec="seconds")
        reason = parked.reason.partition("\n")[0]
        print(f"{parked.id}  {when}  {parked.direction}  {printable(parked.message.name)}  {printable(reason)}")
    if not found:
        print("Nothing is parked.", file=sys.stderr)
    elif len(found) == options.limit:
        print(f"There may be more: these are the first {options.limit} (--limit).", file=sys.stderr)
    return 0


async def _of_name(database: Database, name: str) -> list[UUID]:
    found = await parking.ids(database, name=name)
    if not found:
        print(f"No message is parked under the name {name}.", file=sys.stderr)
    return found


async def _one(action: Callable[[UUID], Awaitable[Parked]], verb: str, parked_id: UUID) -> int:
    try:
        parked = await action(parked_id)
    except NotParked as error:
        print(error, file=sys.stderr)
        return 1
    except DatabaseUnavailable:
        raise
    except Exception as error:
        broken = isinstance(error, ValidationError)
        reason = error.json(include_input=False, include_url=False) if broken else f"{type(error).__name__}: {error}"
        print(f"{parked_id} stays parked: {printable(reason)}", file=sys.stderr)
        return 1
    if verb == "replay":
        print(
            f"{parked_id}  {printable(parked.message.name)}  {'handled' if parked.direction == 'incoming' else 'to be sent'}"
        )
    else:
        print(_described(parked))
    return 0


def _described(parked: Parked) -> str:
    message = parked.message
    text = json.dumps(
        {
            "id": str(parked.id),
            "direction": parked.direction,
            "name": message.name,
            "message_id": message.id,
            "key": message.key,
            "parked_at": parked.parked_at.isoformat(),
            "attempts": parked.attempts,
            "reason": parked.reason,
            "headers": message.headers,
            "body": message.body.decode(errors="backslashreplace"),
        },
        indent=2,
        ensure_ascii=False,
    )
    return printable_lines(text)
