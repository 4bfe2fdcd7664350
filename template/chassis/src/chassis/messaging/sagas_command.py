"""`python -m <service> sagas list | show ID | retry ID | abandon ID | export ID`: how a person looks after sagas."""

import argparse
import asyncio
import json
import sys
from typing import Any
from uuid import UUID

from chassis.database import Database, DatabaseUnavailable
from chassis.database.unit_of_work import Unlisted
from chassis.messaging.outbox import Outbox
from chassis.sagas import Diverged, decisions
from chassis.sagas.summary import summary
from chassis.service import Service
from chassis.settings import CommandSettings
from chassis.telemetry import logs
from chassis.telemetry.printable import printable

STATES = ["active", "all", "parked", "running", "waiting", "undoing", "completed", "abandoned"]
QUERY_SECONDS = 30
EXPORTED = ("id", "name", "key", "version", "state", "reason", "started_at")

_LIST = """
    SELECT id, name, key, state, position, problem, reason, started_at, deadline, traceparent, steps FROM chassis.sagas
    WHERE ($1::text IS NULL OR name = $1) AND ($2::text IS NULL OR key = $2) AND CASE $3 WHEN 'all' THEN true
        WHEN 'active' THEN ended_at IS NULL WHEN 'parked' THEN problem IS NOT NULL ELSE state = $3 END
    ORDER BY {order}, id LIMIT $4
"""
_OLDEST, _LATEST = _LIST.format(order="started_at"), _LIST.format(order="problem IS NULL, updated_at DESC")


def add_arguments(parser: argparse.ArgumentParser, _: Service) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="one line for each saga, the oldest first")
    listing.add_argument("--name", help="only sagas of this name, such as place-order")
    listing.add_argument("--key", help="only the saga of this key")
    listing.add_argument(
        "--state", choices=STATES, default="active", help="default %(default)s: all that have not ended"
    )
    listing.add_argument("--latest", action="store_true", help="parked sagas first, then the latest change first")
    listing.add_argument("--limit", type=int, default=100, help="at most so many (default %(default)s)")
    listing.add_argument("--format", choices=["text", "json"], default="text", help="default %(default)s")
    showing = actions.add_parser("show", help="the steps of a saga, and why it waits for a person")
    retrying = actions.add_parser("retry", help="let a parked saga try its step again")
    retrying.add_argument(
        "--by-hand", action="store_true", help="record its next compensation as done by a person, and do not try it"
    )
    leaving = actions.add_parser("abandon", help="undo the steps of a saga")
    leaving.add_argument("--reason", default="abandoned by a person", help="default: %(default)s")
    exporting = actions.add_parser("export", help="write a saga as JSON, for tests/sagas/runs/")
    for action in (showing, retrying, leaving, exporting):
        action.add_argument("id", type=UUID, help="as `list` shows it")


def run(service: Service, settings: CommandSettings, options: argparse.Namespace) -> int:
    """Run the chosen action. Returns the exit status."""
    logs.configure(format=settings.log_format, level="error", service=service.name)
    if service.messages.sagas is None:
        print(f"{service.name} has no sagas: messaging/sagas.py has no line SAGAS = sagas_in(sagas)", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_run(service, settings, options))
    except (DatabaseUnavailable, decisions.Refused, Diverged, Unlisted) as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        return 1
    except TimeoutError:
        problem = f"the database has not answered within {_limit_seconds(settings):g} seconds. A step of the saga may be running"
        print(f"{service.name}: {problem}: run the command again", file=sys.stderr)
        return 1


def _limit_seconds(settings: CommandSettings) -> float:
    """A decision waits for the step that is running."""
    return settings.message_timeout_seconds + QUERY_SECONDS


async def _run(service: Service, settings: CommandSettings, options: argparse.Namespace) -> int:
    database = Database(
        settings.database_url,
        pool_size=1,
        name=f"{service.name}-sagas",
        command_timeout_seconds=_limit_seconds(settings),
        outbox=Outbox(service.messages),
        transaction_pooler=settings.database_transaction_pooler,
        versions=service.versions,
    )
    sagas = service.messages.sagas
    async with database:
        match options.action:
            case "list":
                await _list(database, options)
            case "show":
                print("\n".join(_lines(await decisions.find(database, options.id))))
            case "export":
                print(json.dumps(_exported(await decisions.find(database, options.id)), indent=2))
            case "retry":
                async with database.unit_of_work() as uow:
                    next_step = await decisions.retry(uow, sagas, options.id, by_hand=options.by_hand)
                print(f"{options.id}  {next_step}")
            case _:
                async with database.unit_of_work() as uow:
                    next_step = await decisions.abandon(uow, sagas, options.id, reason=options.reason)
                print(f"{options.id}  {next_step}")
    return 0


async def _list(database: Database, options: argparse.Namespace) -> None:
    query = _LATEST if options.latest else _OLDEST
    found = await database.fetch(query, options.name, options.key, options.state, options.limit)
    if options.format == "json":
        print(json.dumps([summary(dict(row)) for row in found], indent=2))
        return
    for row in found:
        facts = [str(row["id"]), _time(row["started_at"]), row["name"], row["key"], _state(row), row["position"]]
        print("  ".join(map(printable, facts)))
    if not found:
        print("No saga is in this state.", file=sys.stderr)
    elif len(found) == options.limit:
        print(f"There may be more: these are the first {options.limit} (--limit).", file=sys.stderr)


def _exported(row: Any) -> dict[str, Any]:
    facts = {name: row[name] for name in EXPORTED}
    texts = {"id": str(row["id"]), "started_at": row["started_at"].isoformat()}
    return {**facts, **texts, "params": json.loads(row["params"]), "steps": json.loads(row["steps"])}


def _lines(row: Any) -> list[str]:
    steps = json.loads(row["steps"])
    lines = [f"{row['name']}  {row['key']}  version {row['version']}  {_state(row)}  since {_time(row['started_at'])}"]
    lines += [f"  parameters: {row['params']}", *(f"  {_step(step)}" for step in steps)]
    if row["deadline"] is not None:
        lines.append(f"  waits for {row['position']} until {_time(row['deadline'])}")
    lines += [f"  not read: the answer {each['type']} of {each['at'][:19]}" for each in json.loads(row["answers"])]
    lines += [f"  {name}: {row[name]}" for name in ("reason", "problem") if row[name]]
    if row["traceparent"]:
        lines.append(f"  trace: {row['traceparent'].split('-')[1]}")
    return [printable(line) for line in lines]


def _step(step: dict[str, Any]) -> str:
    how = step.get("answer") or (f"refused by {step['error'].partition(':')[2]}" if "error" in step else "done")
    undone = f", undone{' by hand' if 'by_hand' in step else ''} {step['undone'][:19]}" if "undone" in step else ""
    return f"{step['name']}: {how} {step.get('at', '')[:19]}{undone}"


def _state(row: Any) -> str:
    return f"{row['state']}, parked" if row["problem"] else row["state"]


def _time(moment: Any) -> str:
    return moment.isoformat(timespec="seconds")
