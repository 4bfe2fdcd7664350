"""The map of a fleet. What is known of a commit is kept, so that only what has changed is read again."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet.cache import cache, version_of_checks, write_whole
from fleet.check.standing import Standing
from fleet.errors import FleetError, told
from fleet.git.git import without_credentials
from fleet.map.facts import Facts, facts
from fleet.map.model import Map
from fleet.processes.limits import TooMuch, limit_seconds, limited
from fleet.processes.parallel import Lost, in_processes, in_threads
from fleet.progress import progress
from fleet.service.mirror import dropped_for_damage, mirror_of, newest
from fleet.service.register import Member
from fleet.service.service import Service
from fleet.service.waivers import today

READING = "reading the service for the map"


@dataclass(frozen=True)
class Source:
    """A commit of a repository on this machine; or its working copy, if `commit` is empty."""

    name: str
    repository: Path
    commit: str = ""
    member: Member | None = None


def of_folders(paths: Iterable[Path], jobs: int | None = None) -> Map:
    """With what is not committed yet."""
    return of_sources([Source(path.resolve().name, path) for path in dict.fromkeys(paths)], jobs=jobs)


def of_members(members: list[Member], jobs: int | None = None) -> Map:
    """At the newest commits of their branches."""
    commits, unread = in_threads(newest, members, "fetching")
    sources = [Source(one.name, commits[one].repository, commits[one].id, one) for one in members if one in commits]
    reasons = {member.name: without_credentials(str(error)) for member, error in unread.items()}
    return of_sources(sources, reasons, jobs)


def of_standings(members: list[Member], standings: list[Standing]) -> Map:
    """At the commits that `fleet status` has looked at, and fetched if need be."""
    pairs = list(zip(members, standings, strict=True))
    unread = {one.name: standing.unreadable for one, standing in pairs if standing.unreadable}
    sources = [
        Source(one.name, Path(one.address) if one.is_local else mirror_of(one), standing.commit, one)
        for one, standing in pairs
        if not standing.unreadable
    ]
    return of_sources(sources, unread)


def of_sources(sources: list[Source], unread: dict[str, str] | None = None, jobs: int | None = None) -> Map:
    """`unread` are services that cannot be read, and why. Those of the sources that cannot join them."""
    limit_seconds()  # said once, and not of each service
    recalled, failed = in_threads(_recalled, sources)
    read = {source: known for source, known in recalled.items() if known is not None}
    todo = [source for source in recalled if source not in read]
    with progress("reading" if any(source.commit for source in todo) else "", len(todo)) as step:
        for source, result in in_processes(attempt, todo, jobs=jobs or os.cpu_count() or 1):
            if isinstance(result, Facts):
                read[source] = result
            else:
                failed[source] = FleetError(result.why)
                if result.is_out_of_time:
                    _remember_too_much(source, result.why)
            step()
    reasons = {source.name: without_credentials(str(error)) for source, error in failed.items()}
    known = [source for source in sources if source in read]
    names = {source.name: read[source].name for source in known}
    return Map([read[source] for source in known], (unread or {}) | reasons, names)


def _recalled(source: Source) -> Facts | None:
    """What is known of a commit. Raises FleetError if it is known to be too much to read."""
    if not source.commit:
        return None
    try:
        written = json.loads(_memory(source.repository, source.commit).read_bytes())
        if "too_much" not in written:
            return Facts.from_json(written)
        reason = written["too_much"] if written["limits"] == _limits() else ""
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if reason:
        raise FleetError(reason)
    return None


def attempt(source: Source) -> Facts | Lost:
    """In a process of its own: the facts of a service, or why it cannot be read. A damaged mirror is fetched anew."""
    try:
        try:
            return _facts(source)
        except FleetError:
            if source.member is None or not dropped_for_damage(source.member):
                raise
            return _facts(replace(source, commit=newest(source.member).id))
    except Exception as error:
        return Lost(str(told(error)))


def _facts(source: Source) -> Facts:
    """Raises FleetError."""
    if source.commit:
        return kept(source.repository, source.commit, Service(source.repository, source.commit, source.commit))
    with limited(READING):
        return _read(Service(source.repository))


def kept(repository: Path, commit: str, service: Service) -> Facts:
    """Read the facts of a service at a commit, and keep them for the next map; or that they take too much. Raises FleetError."""
    try:
        with limited(READING):
            found = _read(service)
    except TooMuch as error:
        _remember_too_much(Source("", repository, commit), str(error))
        raise
    write_whole(_memory(repository, commit), json.dumps(found.to_json()))
    return found


def _remember_too_much(source: Source, why: str) -> None:
    if source.commit:
        write_whole(_memory(source.repository, source.commit), json.dumps({"too_much": why, "limits": _limits()}))


def _limits() -> list[Any]:
    """How long a failure counts: until somebody sets another limit, or for the day, for the machine may have been short."""
    return [today().isoformat(), limit_seconds()]


def _memory(repository: Path, commit: str) -> Path:
    """Of this repository alone: whoever owns one on this machine may have forged what a commit of another one has."""
    name = hashlib.sha256(f"{repository.resolve()} {commit} {version_of_checks()}".encode()).hexdigest()
    return cache() / "facts" / name[:2] / f"{name[2:40]}.json"


def _read(service: Service) -> Facts:
    """Raises FleetError, whatever goes wrong: a file of a shape that nobody thought of must not hide the other services."""
    try:
        return facts(service)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise FleetError(f"a file has a shape that the map does not know: {type(error).__name__} {error}") from error
