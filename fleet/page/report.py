"""Gather the content of the page that takes reading: the map, and the messages of this run."""

from dataclasses import replace

from fleet.map import reader, show
from fleet.map.findings import findings
from fleet.map.model import Map
from fleet.output import reported
from fleet.page import Content
from fleet.page.faults import faults
from fleet.service.fleet_toml import Member


def gather(members: list[Member], content: Content) -> Content:
    """Return the content with the map of these services, and with the messages of this run."""
    map_ = reader.read_standings(members, list(content.standings))
    return replace(with_map(content, map_), notes=reported())


def with_map(content: Content, map_: Map) -> Content:
    """Return the content with a map."""
    links = {standing.name: f"#s{number}" for number, standing in enumerate(content.standings, 1)}
    found = findings(map_)
    return replace(content, graph=show.html(map_, found, links), own_names=map_.names, faults=faults(map_, found))
