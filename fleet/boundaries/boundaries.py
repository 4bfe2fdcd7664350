"""Ask whether the services of a fleet are still the right ones."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from fleet.boundaries import past as reading
from fleet.boundaries import traces
from fleet.boundaries.days import window
from fleet.boundaries.merge import merges
from fleet.boundaries.passed_on import passed_on
from fleet.boundaries.past import Past
from fleet.boundaries.questions import Question
from fleet.boundaries.split import splits
from fleet.boundaries.together import CONTRACTS, DEPLOYMENTS, together
from fleet.errors import FleetError, as_fleet_error
from fleet.git.git import without_credentials
from fleet.map.model import Map
from fleet.map.reader import Source, read_sources
from fleet.processes.parallel import Failure, default_jobs, in_processes, in_threads
from fleet.processes.resource_limits import limit_resources
from fleet.progress import progress
from fleet.service.fleet_toml import Member
from fleet.service.mirror import drop_if_damaged, history_of, with_history
from fleet.service.waivers import today

READING = "reading the history of the service"


@dataclass(frozen=True)
class _Wanted:
    """A service whose past is wanted, and the days to read. The days are chosen once, so that all processes read the same."""

    source: Source
    first: date
    last: date


@dataclass(frozen=True)
class Report:
    """The questions, and all that was read. `unread` are services without a known history, with the reasons."""

    first: date
    last: date
    questions: tuple[Question, ...]
    pasts: dict[str, Past]
    unread: dict[str, str]


def sources_of(paths: Iterable[Path]) -> tuple[list[Source], dict[str, str]]:
    """Find the last commits of repositories on this machine, and the reasons why others cannot be read."""
    members = [Member(path.resolve().name, str(path.resolve()), is_local=True) for path in dict.fromkeys(paths)]
    return sources_of_members(members)


def sources_of_members(members: list[Member]) -> tuple[list[Source], dict[str, str]]:
    """Find the newest commits of the members, with their histories, and the reasons why others cannot be read."""
    commits, failed = in_threads(with_history, members, "fetching histories")
    found = [Source(one.name, commits[one].repository, commits[one].id, one) for one in members if one in commits]
    return found, {one.name: without_credentials(str(error)) for one, error in failed.items()}


def ask(
    sources: list[Source], unread: dict[str, str], traffic: traces.Traffic | None = None, jobs: int | None = None
) -> Report:
    """Read the histories and the map of these services, and find the questions. Raises FleetError."""
    first, last = window(today())
    pasts, unread = _pasts([_Wanted(one, first, last) for one in sources], dict(unread), jobs or default_jobs())
    map_ = read_sources(sources, unread, jobs)
    return Report(first, last, tuple(_questions(map_, pasts, traffic, (first, last))), pasts, map_.unread)


def _questions(
    map_: Map, pasts: dict[str, Past], traffic: traces.Traffic | None, days: tuple[date, date]
) -> Iterable[Question]:
    linked = {frozenset((edge.source, edge.target)) for edge in map_.edges if not edge.is_open}
    yield from together(CONTRACTS, pasts, linked, days)
    yield from together(DEPLOYMENTS, pasts, linked, days)
    yield from traces.chatty(traffic, pasts) if traffic else ()
    yield from passed_on(map_, pasts)
    yield from merges(map_, pasts, days)
    yield from splits(pasts, days)


def _pasts(wanted: list[_Wanted], unread: dict[str, str], jobs: int) -> tuple[dict[str, Past], dict[str, str]]:
    """Read the past of each service, by the service's own name. The first of several services of one name counts."""
    recalled, _ = in_threads(_recall, wanted)
    read = {one: past for one, past in recalled.items() if past}
    todo = [one for one, past in recalled.items() if past is None]
    with progress("reading histories", len(todo)) as step:
        for one, result in in_processes(attempt_past, todo, jobs=jobs):
            if isinstance(result, Past):
                read[one] = result
            else:
                unread[one.source.name] = without_credentials(result.why)
            step()
    pasts: dict[str, Past] = {}
    for one in (one for one in wanted if one in read):
        stated = one.source.member.traits.owner if one.source.member else ""
        pasts.setdefault(read[one].name, replace(read[one], owner=stated or read[one].owner))
    return pasts, unread


def _recall(one: _Wanted) -> Past | None:
    """Read the cached past of a service. A repository that cannot be read is left to `attempt_past`."""
    with suppress(FleetError):
        return reading.recall(one.source.repository, one.source.commit, one.first, one.last)
    return None


def attempt_past(one: _Wanted) -> Past | Failure:
    """Read the past of a service in a process of its own, or state why it cannot be read. Fetch a damaged mirror anew."""
    try:
        try:
            return _read(one)
        except FleetError:
            member = one.source.member
            if member is None or not drop_if_damaged(member, history_of(member)):
                raise
            commit = with_history(member)
            return _read(replace(one, source=replace(one.source, repository=commit.repository, commit=commit.id)))
    except Exception as error:
        return Failure(str(as_fleet_error(error)))


def _read(one: _Wanted) -> Past:
    with limit_resources(READING):
        return reading.read(one.source.repository, one.source.commit, one.first, one.last)
