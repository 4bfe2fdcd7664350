"""Choose one service and its neighbours from the map, and stubs for the services that the chosen services call."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet.client import uses
from fleet.client.sources import NAME
from fleet.errors import FleetError
from fleet.map.model import Map
from fleet.map.reader import read_folders
from fleet.output import warn
from fleet.service.fleet_toml import members
from fleet.service.openapi import Document
from fleet.up.product import Checkout, Selection
from fleet.up.regular_file import read_regular_file
from fleet.up.stubs import Stub
from fleet.up.wiring import find, neighbour_settings


def around(name: str, selection: Selection, config: Path) -> Selection:
    """Leave only the service and its neighbours to start. Raises FleetError."""
    known = [*selection.started, *selection.left_out]
    map_ = read_folders([one.folder for one in known])
    for folder, reason in map_.unread.items():
        warn(f"{folder} is not on the map, so only its settings and specs/uses name its neighbours: {reason}")
    calls = {one.name: _called(one, map_, known) for one in known}
    service = find(name, selection.started)
    if service is None:
        names = ", ".join(one.name for one in selection.started)
        raise FleetError(f"--around: there is no service {name} to start here: the services are {names}")
    near = {service.name, *calls[service.name], *(caller for caller, called in calls.items() if service.name in called)}
    near |= {
        end for edge in map_.edges for end in (edge.source, edge.target) if service.name in (edge.source, edge.target)
    }
    started = [one for one in selection.started if one.name in near]
    beyond = [one for one in selection.started if one not in started]
    wanted: dict[str, list[Checkout]] = {}
    for caller in started:
        for called in sorted(calls[caller.name]):
            if find(called, [*started, *selection.left_out]) is None:
                wanted.setdefault(called, []).append(caller)
    listed = {one.name for one in members(config)} if config.exists() else set()
    found = (_stub(called, callers, beyond, listed, config) for called, callers in wanted.items())
    return replace(selection, started=started, missing=[], stubs=[one for one in found if one])


def _called(caller: Checkout, map_: Map, known: Sequence[Checkout]) -> set[str]:
    """Return the names of the services that a service calls, by its specs, its catalogue, its code and its settings."""
    named = {file.stem for file in (caller.folder / "specs/uses").glob("*.json")}
    named |= {*neighbour_settings(caller).values()}
    if facts := map_.services.get(caller.name):
        named |= {name for name in facts.consumes if not name.endswith("-messages")}
        named |= {client.target for client in facts.clients}
    # The map does not know the names in fleet.toml, by which `find` finds a service.
    found = {map_.service_of(name) or getattr(find(name, known), "name", name) for name in named} - {caller.name}
    return {name for name in found if NAME.fullmatch(name)}  # a name becomes a part of paths


def _stub(
    name: str, callers: Sequence[Checkout], beyond: Sequence[Checkout], listed: Collection[str], config: Path
) -> Stub | None:
    """Make a stub of the service's own document, or else of the parts that its callers use. None for an unknown service."""
    used = [file for caller in callers if (file := caller.folder / f"specs/uses/{name}.json").is_file()]
    checkout = find(name, beyond)
    entry = next((one for one in (name, f"{name}-service") if one in listed), None)
    if not (checkout or entry or used):
        return None
    found, alias = (checkout.name, checkout.alias) if checkout else (name, entry or name)
    reasons = []
    if checkout or entry:
        try:
            source = str(checkout.folder) if checkout else None
            return Stub(
                found, alias, source or f"the entry of {alias} in {config}", uses.read_source(alias, source, config)
            )
        except FleetError as error:
            reasons.append(str(error))
    parts = []
    for file in used:
        try:
            parts.append(uses.parse(str(file), read_regular_file(file)).content)
        except (FleetError, OSError) as error:
            reasons.append(str(error))
    if parts:
        try:
            return Stub(found, alias, ", ".join(map(str, used)), Document(_joined(parts)))
        except FleetError as error:  # such as a reference to a schema that none of the joined parts has
            reasons.append(str(error))
    return Stub(found, alias, "no document", missing=f"no API document of {found} is known: {'; '.join(reasons)}")


def _joined(parts: Sequence[Any]) -> Mapping[str, Any]:
    """Join the documents of several callers. Where two differ, the first one counts. Malformed parts are left out."""
    joined: dict[str, Any] = {"openapi": "3.1.0", "paths": {}, "components": {}}
    for part, key in ((part, key) for part in parts for key in ("paths", "components")):
        written = part.get(key)
        for name, item in written.items() if isinstance(written, dict) else ():
            if isinstance(item, dict):
                joined[key][name] = item | joined[key].get(name, {})
    return json.loads(json.dumps(joined, default=str))  # dates of YAML become texts
