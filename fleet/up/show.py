"""The services of a run as a table and as JSON."""

import json
from typing import TYPE_CHECKING, Any

from fleet.output import console, visible

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {"ready": "green", "starting": "yellow", "unready": "yellow", "broken": "red", "stopped": "dim"}


def table(status: dict[str, Any]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("service", "URL", "health", "version", "migration", "restarts"):
        is_whole = column in ("service", "URL")  # even in a narrow terminal
        shown.add_column(column, justify="right" if column == "restarts" else "left", no_wrap=is_whole)
    for one in status["services"]:
        health = f"{one['state']}: {one['doing']}" if one["doing"] else one["state"]
        cells = (one["name"], one["url"], Text(health, COLOURS[one["state"]]), one["version"], one["migration"][:4])
        shown.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), Text(str(one["restarts"])))
    for one in status["stubs"]:
        shown.add_row(Text(one["name"]), Text(one["url"]), Text("stub", "dim"))
    return shown


def services(status: dict[str, Any]) -> None:
    """Print the table, and the reasons of services that are not ready."""
    from rich.text import Text

    out = console()
    out.print(table(status))
    for one in status["services"]:
        for text in filter(None, (one["problem"], one["note"])):
            out.print(Text(f"{one['name']}: {text}\n"), soft_wrap=True)


def whole(status: dict[str, Any]) -> None:
    """Print the services, the stubs, and the addresses of what they share."""
    from rich.text import Text

    services(status)
    out = console()
    for one in status["stubs"]:
        out.print(Text(f"{one['name']} is a stub, which answers from {one['origin']}"), soft_wrap=True)
    for name, address in status["addresses"].items():
        out.print(Text(f"{name:<10} {address}"), soft_wrap=True)


def as_json(status: dict[str, Any]) -> str:
    return visible(json.dumps(status, indent=2))


def is_settled(status: dict[str, Any]) -> bool:
    return not any(one["state"] == "starting" for one in status["services"])


def is_ready(status: dict[str, Any]) -> bool:
    return all(one["state"] == "ready" for one in status["services"])
