"""`fleet status`: how all services of the fleet stand. What was found is remembered until something that matters changes."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from threading import Thread
from typing import Any

from fleet.cache import cache, version_of_checks, write_whole
from fleet.check.checks import ON_THIS_MACHINE
from fleet.check.standing import Standing, judge, opened, renamed, unreadable
from fleet.conventions import conventions
from fleet.errors import FleetError, OfThisMachine
from fleet.processes.limits import TooMuch, limit_seconds, limited
from fleet.processes.parallel import Lost, in_processes, in_threads
from fleet.progress import progress
from fleet.service.mirror import Commit, dropped_for_damage, newest
from fleet.service.register import Member
from fleet.service.service import Service
from fleet.service.waivers import today
from fleet.status.neighbours import with_neighbours
from fleet.template.template import Template

Batch = tuple[tuple[Member, Commit], ...]

# So many services at a time in a process, at most: what tools take to start is shared by as many.
BATCH = 50


@dataclass(frozen=True)
class _Remembered:
    """A result of an earlier run, and the key of what it judged."""

    key: list[str]
    source: str
    standing: Standing


def status(members: list[Member], jobs: int | None = None) -> list[Standing]:
    """In the order of the members. A service that cannot be read is in it, with the reason."""
    limit_seconds()  # said once, and not of each service
    known = {member: recalled for member in members if (recalled := _recall(member))}
    seen = {member: recalled.standing.commit for member, recalled in known.items()}
    commits, unread = in_threads(lambda member: newest(member, seen.get(member, "")), members, "fetching")
    sources, without = in_threads(lambda member: _source(member, commits, known.get(member)), list(commits))
    releases, unknown = in_threads(_newest_release, sorted(set(sources.values())))
    of_template = {member: unknown[source] for member, source in sources.items() if source in unknown}
    found = {
        member: unreadable(member, error, commits[member].id if member in commits else "")
        for member, error in (unread | without | of_template).items()
    }
    keys = {member: _key(commits[member], releases[sources[member]]) for member in members if member not in found}
    for member, key in keys.items():
        if member in known and known[member].key == key:
            found[member] = renamed(known[member].standing, member)

    todo = [(member, commits[member]) for member in members if member not in found]
    jobs = jobs or os.cpu_count() or 1
    batches = _batches(todo, jobs)
    if todo:
        # While the services are rendered; daemon, so that nobody waits for it in the end.
        Thread(target=_prepare, args=([],), daemon=True).start()
    with progress("checking", len(todo)) as step:
        for member, standing in _judged(batches, jobs):
            found[member] = standing
            if not _is_unfinished(standing):
                _remember(member, _Remembered(keys[member], sources[member], standing))
            step()
    return with_neighbours(members, [found[member] for member in members])


def _batches(todo: list[tuple[Member, Commit]], jobs: int) -> list[Batch]:
    """All processes have as much to do, and nobody waits for the last batch of one of them."""
    rounds = -(-len(todo) // (jobs * BATCH))
    size = -(-len(todo) // max(jobs * rounds, 1))
    return [tuple(todo[start : start + size]) for start in range(0, len(todo), size or 1)]


def _judged(batches: list[Batch], jobs: int) -> Iterator[tuple[Member, Standing]]:
    lost: list[Batch] = []
    for batch, standings in in_processes(_judge, batches, jobs=jobs):
        if not isinstance(standings, Lost):
            yield from zip((member for member, _ in batch), standings, strict=True)
        elif len(batch) > 1:
            # One of them it was. The others are not to suffer for it.
            lost += [(one,) for one in batch]
        else:
            ((member, commit),) = batch
            yield member, unreadable(member, standings.why, commit.id)
    if lost:
        yield from _judged(lost, jobs)


def _judge(batch: Batch) -> list[Standing]:
    """In a process of its own. Its services share what is known of a template, and one start of slow tools."""
    opened = {commit: _opened(commit) for _, commit in batch}
    _prepare([service for service in opened.values() if isinstance(service, Service)])
    return [_judge_one(member, commit, opened) for member, commit in batch]


def _judge_one(member: Member, commit: Commit, opened: dict[Commit, Service | FleetError | None]) -> Standing:
    from fleet.map.gather import kept

    # What was parsed of a service is not kept until the last one is judged.
    service = opened.pop(commit, None)
    if isinstance(service, TooMuch):
        return unreadable(member, service, commit.id)
    if isinstance(service, FleetError):
        standing, service = unreadable(member, service, commit.id), None
    else:
        standing = judge(member, commit, service)
    with suppress(FleetError):  # a host that is away now: then it stays as it is
        if _is_unfinished(standing) and dropped_for_damage(member):
            commit, service = newest(member), None
            standing = judge(member, commit)
    if service and not standing.unreadable:
        # While its files are parsed. What is wrong with one of them the map says itself.
        with suppress(FleetError, OSError):
            kept(commit.repository, commit.id, service)
    return standing


def _is_unfinished(standing: Standing) -> bool:
    """Whether anything could not be told for a reason that may be this machine's, such as a damaged mirror."""
    return bool(standing.unreadable) or any(one.reason.startswith(ON_THIS_MACHINE) for one in standing.conventions)


def _prepare(services: list[Service]) -> None:
    for convention in conventions():
        # Whatever it is, `check` meets it again, and then it is known whose it is.
        with suppress(Exception), limited("it"):
            convention.prepare(services)


def _opened(commit: Commit) -> Service | FleetError | None:
    """Open and render a service. The error if that took too long. None after any other error, which `judge` meets and reports."""
    try:
        with limited("rendering the service"):
            service = opened(commit)
            service.template = _template(service.answers.source)
            _ = service.expected
            service.hold()
            service.rest()
    except (TooMuch, OfThisMachine) as error:
        return error
    except Exception:
        return None
    return service


@once
def _template(source: str) -> Template:
    return Template(source)


def _source(member: Member, commits: dict[Member, Commit], known: _Remembered | None) -> str:
    """The template's address. A commit that its mirror has lost is fetched anew."""
    if known and known.standing.commit == commits[member].id:
        return known.source
    try:
        return commits[member].answers().source
    except FleetError:
        if not dropped_for_damage(member):
            raise
        commits[member] = newest(member)
        return commits[member].answers().source


def _newest_release(source: str) -> str:
    template = Template(source)
    template.refresh_if_possible()
    release = template.newest()
    return f"{release.version} {release.commit}"


def _key(commit: Commit, release: str) -> list[str]:
    """What a standing depends on. The day, for waivers expire and releases age."""
    return [commit.id, release, today().isoformat(), version_of_checks()]


def _file(member: Member) -> Path:
    """One for each service, so that what is remembered grows with the fleet and not with its work."""
    return cache() / "standings" / f"{member.key}.json"


def _recall(member: Member) -> _Remembered | None:
    try:
        written = json.loads(_file(member).read_bytes())
        return _Remembered(written["key"], written["source"], Standing.from_json(written["standing"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(member: Member, found: _Remembered) -> None:
    written: dict[str, Any] = {"key": found.key, "source": found.source, "standing": found.standing.to_json()}
    write_whole(_file(member), json.dumps(written))


def is_breached(standings: Iterable[Standing]) -> bool:
    """Whether any service is against the platform's policy, or cannot be read."""
    return any(standing.level == "error" for standing in standings)
