"""Format the state of the fleet as one HTML file, which needs no network, no other files and no server."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from packaging.version import Version

from fleet.check.findings import Level
from fleet.check.standing import Standing
from fleet.conventions import Convention
from fleet.output import count
from fleet.service.waivers import today
from fleet.status.show import COLUMNS, cells, format_counts, place, summary, versions, word
from fleet.template.release import as_version

WORST_LAST = ("in order", "warning", "breach", "unreadable")


def page(standings: list[Standing], conventions: Sequence[Convention], graph: str = "") -> str:
    """Format the page. `graph` is an additional section of trusted HTML, with an SVG that fleet made."""
    numbers = versions(standings)
    order = sorted(numbers, key=lambda one: (as_version(one) or Version("0"), one))
    script = _part("page.js") + (_part("map.js") if graph else "")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("page.html.jinja")).render(
        today=today(),
        columns=COLUMNS,
        summary=summary(standings),
        rows=[_row(number, standing, order) for number, standing in enumerate(standings, 1)],
        versions=[(version, numbers[version]) for version in order],
        conventions=[
            (one.id, one.reason, sum(one.id in standing.failed for standing in standings)) for one in conventions
        ],
        graph=graph,
        style=_part("page.css") + (_part("map.css") if graph else ""),
        script=script,
        # The browser runs no other script, even if a text of a service got into the page as HTML.
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        count=count,
        place=place,
    )


def _row(number: int, standing: Standing, versions: list[str]) -> dict[str, object]:
    waivers = standing.waivers or {}
    findings = sorted(standing.findings, key=lambda one: list(Level).index(one.level))
    ranks = (
        WORST_LAST.index(word(standing)),
        versions.index(standing.version) if standing.version else -1,
        standing.releases_behind * 100_000 + standing.days_behind,
        sum(standing.drift.values()),
        len(standing.failed) * 1000 + len(standing.waived),
        len(standing.neighbours),
        waivers.get("void", 0) * 1_000_000 + waivers.get("expiring", 0) * 1000 + waivers.get("live", 0),
    )
    return {
        "number": number,
        "standing": standing,
        "word": word(standing),
        # Each cell with its text and its rank, by which the table is sorted.
        "cells": list(zip(cells(standing), ranks, strict=True)),
        "heat": {id_: _heat(standing, id_) for id_ in {one.id for one in standing.conventions}},
        "tally": format_counts(Counter(one.level.value for one in findings)),
        "findings": findings,
    }


def _heat(standing: Standing, convention: str) -> dict[str, object]:
    found = [one for one in standing.conventions if one.id == convention]
    return {"is_waived": convention not in standing.failed, "number": len(found), "first": found[0].reason}


def _part(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
