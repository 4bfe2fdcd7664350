"""Read the map of a fleet. The facts of a commit are cached, so that only new commits are read."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet.cache import cache, mark_used, version_of_checks, write_atomically
from fleet.check.standing import Standing
from fleet.errors import FleetError, as_fleet_error
from fleet.git.git import without_credentials
from fleet.map.facts import Facts, facts
from fleet.map.model import Map
from fleet.map.networks import Network, networks
from fleet.policy.traits import Traits
from fleet.processes.parallel import Failure, default_jobs, in_processes, in_threads
from fleet.processes.resource_limits import LimitExceeded, limit_resources, limit_seconds
from fleet.progress import progress
from fleet.service.fleet_toml import Member
from fleet.service.mirror import drop_if_damaged, mirror_of, newest, newest_commits
from fleet.service.openapi import SPEC
from fleet.service.service import Service
from fleet.service.waivers import today

READING = "reading the service for the map"
# The most facts of one commit in the cache. A schema that many messages refer to is there once for each of them.
MOST_FACTS_BYTES = 2**23


@dataclass(frozen=True)
class Source:
    """A commit of a repository on this machine, or the working copy if `commit` is empty."""

    name: str
    repository: Path
    commit: str = ""
    member: Member | None = None


def read_folders(paths: Iterable[Path], jobs: int | None = None) -> Map:
    """Read the map of repositories on this machine, with uncommitted changes."""
    return read_sources([Source(path.resolve().name, path) for path in dict.fromkeys(paths)], jobs=jobs)


def read_members(members: list[Member], jobs: int | None = None) -> Map:
    """Read the map of the members at the newest commits of their branches."""
    commits, unread = newest_commits(members)
    sources = [Source(one.name, commits[one].repository, commits[one].id, one) for one in members if one in commits]
    reasons = {member.name: without_credentials(str(error)) for member, error in unread.items()}
    return read_sources(sources, reasons, jobs)


def read_standings(members: list[Member], standings: list[Standing]) -> Map:
    """Read the map of the members at the commits that `fleet status` has judged."""
    pairs = list(zip(members, standings, strict=True))
    unread = {one.name: standing.unreadable for one, standing in pairs if standing.unreadable}
    sources = [
        Source(one.name, Path(one.address) if one.is_local else mirror_of(one), standing.commit, one)
        for one, standing in pairs
        if not standing.unreadable
    ]
    return read_sources(sources, unread)


def read_sources(sources: list[Source], unread: dict[str, str] | None = None, jobs: int | None = None) -> Map:
    """Read the map of the sources. `unread` are unreadable services with the reasons. Unreadable sources are added to them."""
    limit_seconds()  # a wrong FLEET_LIMIT_SECONDS is reported once, and not for each service
    recalled, failed = in_threads(_recall, sources)
    read = {source: known for source, known in recalled.items() if known is not None}
    todo = [source for source in recalled if source not in read]
    with progress("reading" if any(source.commit for source in todo) else "", len(todo)) as step:
        for source, result in in_processes(attempt_facts, todo, jobs=jobs or default_jobs()):
            if isinstance(result, Facts):
                read[source] = result
            else:
                failed[source] = FleetError(result.why)
                if result.is_out_of_time:
                    _remember_too_much(source, result.why)
            step()
    reasons = {source.name: without_credentials(str(error)) for source, error in failed.items()}
    read = {source: _with_traits(source, one) for source, one in read.items()}
    known = [source for source in sources if source in read]
    names = {source.name: read[source].name for source in known}
    map_ = Map([read[source] for source in known], (unread or {}) | reasons, names)
    map_.places = {read[source].name: (source.repository, source.commit) for source in reversed(known)}
    used = {map_.service_of(name) for one in map_.services.values() for name in one.uses}
    map_.offered = {read[source].name: _offered(source) for source in known if read[source].name in used}
    calling = {*used, *(one.name for one in map_.services.values() if one.uses)}
    map_.networks = {read[source].name: _networks(source) for source in reversed(known) if read[source].name in calling}
    return map_


def _with_traits(source: Source, read: Facts) -> Facts:
    """Return the facts with the owner and the domain that fleet.toml states."""
    stated = source.member.traits if source.member else Traits()
    return replace(read, owner=stated.owner or read.owner, domain=stated.domain or read.domain)


def _offered(source: Source) -> Any:
    """Read the API document of a service that others use; None if it is missing or cannot be read."""
    try:
        with limit_resources(READING):
            return Service(source.repository, source.commit or None).json(SPEC)
    except (FleetError, LimitExceeded):
        return None


def _networks(source: Source) -> list[Network]:
    """Read the overlays of a caller or of a called service, except overlays that cannot be read."""
    try:
        with limit_resources(READING):
            return list(networks(Service(source.repository, source.commit or None)))
    except (FleetError, LimitExceeded):
        return []


def _recall(source: Source) -> Facts | None:
    """Read the cached facts of a commit. Raises FleetError if reading the commit is known to exceed the limits."""
    if not source.commit:
        return None
    file = _memory(source.repository, source.commit)
    try:
        written = json.loads(file.read_bytes())
        mark_used(file)
        if "too_much" not in written:
            return Facts.from_json(written)
        reason = written["too_much"] if written["limits"] == _limits() else ""
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if reason:
        raise FleetError(reason)
    return None


def attempt_facts(source: Source) -> Facts | Failure:
    """Read the facts of a service in a process of its own, or state why they cannot be read. Fetch a damaged mirror anew."""
    try:
        try:
            return _facts(source)
        except FleetError:
            if source.member is None or not drop_if_damaged(source.member):
                raise
            return _facts(replace(source, commit=newest(source.member).id))
    except Exception as error:
        return Failure(str(as_fleet_error(error)))


def _facts(source: Source) -> Facts:
    """Read the facts of a source. Raises FleetError."""
    if source.commit:
        return read_facts(source.repository, source.commit, Service(source.repository, source.commit, source.commit))
    with limit_resources(READING):
        return read_service(Service(source.repository))


def read_facts(repository: Path, commit: str, service: Service) -> Facts:
    """Read the facts of a service at a commit into the cache, which also keeps that a limit was exceeded. Raises FleetError."""
    try:
        with limit_resources(READING):
            found = read_service(service)
            text = json.dumps(found.to_json())
            if len(text) > MOST_FACTS_BYTES:
                raise LimitExceeded(
                    f"the facts for the map have more than {MOST_FACTS_BYTES >> 20} MiB: make the schemas in specs/ smaller"
                )
    except LimitExceeded as error:
        _remember_too_much(Source("", repository, commit), str(error))
        raise
    write_atomically(_memory(repository, commit), text)
    return found


def _remember_too_much(source: Source, why: str) -> None:
    if source.commit:
        write_atomically(_memory(source.repository, source.commit), json.dumps({"too_much": why, "limits": _limits()}))


def _limits() -> list[Any]:
    """Return the inputs of a failure.

    These are the limit, and the day, because the machine may have been short of memory on that day.
    """
    return [today().isoformat(), limit_seconds()]


def _memory(repository: Path, commit: str) -> Path:
    """The cache file for a commit of this repository only, because another repository may contain a forged commit."""
    name = hashlib.sha256(f"{repository.resolve()} {commit} {version_of_checks()}".encode()).hexdigest()
    return cache() / "facts" / name[:2] / f"{name[2:40]}.json"


def read_service(service: Service) -> Facts:
    """Read the facts of a service. Raises FleetError even for an unexpected shape, which must not hide other services."""
    try:
        return facts(service)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise FleetError(
            f"a file has a structure that the map does not know: {type(error).__name__} {error}"
        ) from error
