"""Gather the content of the page: the standings, the map, the history, and the messages of this run."""

from collections.abc import Mapping, Sequence

from fleet.check.standing import Standing
from fleet.conventions import conventions
from fleet.history.days import Day
from fleet.map import reader, show
from fleet.map.findings import findings
from fleet.output import reported
from fleet.page import Content
from fleet.service.register import Member


def gather(members: list[Member], standings: list[Standing], days: Sequence[Day], kinds: Mapping[str, str]) -> Content:
    """Read the map of these services, and return the content of the page."""
    map_ = reader.read_standings(members, standings)
    links = {standing.name: f"#s{number}" for number, standing in enumerate(standings, 1)}
    return Content(standings, conventions(), show.html(map_, findings(map_), links), days, kinds, reported())
