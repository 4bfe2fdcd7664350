"""The errors of `fleet map` by service, which `fleet status` counts too."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from fleet.cache import cache, version_of_checks, write_atomically
from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.policy.policy import digest_of_chosen_policy
from fleet.service.fleet_toml import Member
from fleet.service.waivers import today

Errors = list[list[Finding]]


def with_neighbours(members: list[Member], standings: list[Standing]) -> list[Standing]:
    """Add to each standing the errors of the map that its service has to fix.

    The errors are cached until any service has a new commit, because building the map takes longer than all else.
    """
    file = _memory(members, standings)
    errors = _recall(file)
    if errors is None:
        errors = _errors(members, standings)
        # A service that could not be read may be readable in a minute.
        if not any(finding.id == "map-unread" for found in errors for finding in found):
            write_atomically(file, json.dumps([[asdict(finding) for finding in found] for found in errors]))
    return [replace(one, neighbours=tuple(found)) for one, found in zip(standings, errors, strict=True)]


def _errors(members: list[Member], standings: list[Standing]) -> Errors:
    # Imported here, because these imports take longer than the rest of a run that finds everything in the cache.
    from fleet.map import reader
    from fleet.map.findings import findings

    map_ = reader.read_standings(members, standings)
    errors = [one for one in findings(map_) if one.finding.level is Level.ERROR]
    names = [map_.names.get(member.name, member.name) for member in members]
    return [
        [] if standing.unreadable else [one.finding for one in errors if name in one.acting]
        for name, standing in zip(names, standings, strict=True)
    ]


def _recall(file: Path) -> Errors | None:
    try:
        written = json.loads(file.read_bytes())
        return [[Finding(**one | {"level": Level(one["level"])}) for one in found] for found in written]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _memory(members: list[Member], standings: list[Standing]) -> Path:
    """Return the file in the cache for the errors of these commits on this day.

    The day counts, because waivers expire. The newest release and a chosen policy count, because a policy can void waivers.
    """
    services = [
        [member.name, member.key, one.commit, one.newest, one.unreadable]
        for member, one in zip(members, standings, strict=True)
    ]
    inputs = json.dumps([today().isoformat(), version_of_checks(), services, *digest_of_chosen_policy()])
    return cache() / "maps" / f"{hashlib.sha256(inputs.encode()).hexdigest()[:40]}.json"
