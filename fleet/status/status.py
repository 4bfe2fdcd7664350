"""`fleet status`: the state of all services. A standing is cached until the commit, the release, the day or fleet changes."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from fleet.cache import cache, version_of_checks, write_atomically
from fleet.check.checks import ON_THIS_MACHINE
from fleet.check.levels import apply_policy, known_conventions, traits_of
from fleet.check.standing import Standing, judge, open_service, rename, unreadable, with_traits
from fleet.conventions import conventions
from fleet.conventions.packages import packages
from fleet.errors import FleetError, MachineError
from fleet.output import warn
from fleet.policy.policy import Policy, chosen_policy, digest_of_chosen_policy, policy_of
from fleet.processes.parallel import Failure, default_jobs, in_processes, in_threads
from fleet.processes.resource_limits import LimitExceeded, limit_resources, limit_seconds
from fleet.progress import progress
from fleet.service.fleet_toml import Member
from fleet.service.mirror import Commit, drop_if_damaged, newest, newest_commits
from fleet.service.service import Service
from fleet.service.waivers import today
from fleet.status.neighbours import with_neighbours
from fleet.template.template import Template

# Services to judge in one process, each with its commit and the address of the template that it probably has.
Batch = tuple[tuple[Member, Commit, str], ...]

# The most services in one batch. Slow tools start once for a batch.
BATCH = 100


class _OtherTemplate(FleetError):
    """The service has another template than the template that was fetched."""


@dataclass(frozen=True)
class _Remembered:
    """The standing that an earlier run found, and the key of its inputs."""

    key: list[str]
    source: str
    standing: Standing


def status(members: list[Member], jobs: int | None = None) -> list[Standing]:
    """Find the standing of each member, in their order. The standing of an unreadable service states the reason."""
    limit_seconds()  # a wrong FLEET_LIMIT_SECONDS is reported once, and not for each service
    chosen_policy(known_conventions())  # a policy with a mistake is reported once, too
    known = {member: recalled for member in members if (recalled := _recall(member))}
    commits, unread = newest_commits(members)
    found = {member: with_traits(member, unreadable(member, error)) for member, error in unread.items()}
    policies: set[Policy] = set()
    readable = {one: commits[one] for one in members if one in commits}
    found |= _find(readable, known, policies, jobs or default_jobs())
    traits = [traits_of(one) for one in found.values() if not one.unreadable]
    for group in sorted({str(one) for policy in policies for one in policy.groups_without(traits)}):
        warn(
            f"policy.toml has a group of services with {group}, and there is no such service: correct or remove the group"
        )
    return with_neighbours(members, [found[member] for member in members])


def _find(
    commits: dict[Member, Commit],
    known: dict[Member, _Remembered],
    policies: set[Policy],
    jobs: int,
    *,
    is_assumed: bool = True,
) -> dict[Member, Standing]:
    """Find the standings of these commits, and add the policies that count to `policies`.

    A fleet usually has one template. So each new service is assumed to have the template of the first of them, because
    reading the answers of hundreds of services takes seconds. The process that judges a service reads its answers anyway, and
    gives the service back if the assumption is wrong.
    """
    sources, without = _sources(commits, known, is_assumed=is_assumed)
    releases, unknown = in_threads(_newest_release, sorted(set(sources.values())))
    if unknown and is_assumed:  # other services may have another template than this one
        sources, without = _sources(commits, known, is_assumed=False)
        rest, failed = in_threads(_newest_release, sorted(set(sources.values()) - releases.keys() - unknown.keys()))
        releases, unknown = releases | rest, unknown | failed
    of_template = {member: unknown[source] for member, source in sources.items() if source in unknown}
    found = {member: unreadable(member, error, commits[member].id) for member, error in (without | of_template).items()}
    keys = {member: _key(commits[member], releases[sources[member]][0]) for member in commits if member not in found}
    for member, key in keys.items():
        if member in known and known[member].key == key:
            found[member] = rename(known[member].standing, member)

    todo = [(member, commits[member], sources[member]) for member in commits if member not in found]
    others: dict[Member, Commit] = {}
    if todo:
        # Tools prepare themselves while the services are rendered. The thread is a daemon, so that the run does not wait for it.
        Thread(target=_prepare, args=([],), daemon=True).start()
    with progress("checking", len(todo)) as step:
        for member, standing in _judged(_batches(todo, jobs), jobs):
            if standing is None:
                others[member] = commits[member]
                continue
            found[member] = standing
            if not _is_unfinished(standing):
                _remember(member, _Remembered(keys[member], sources[member], standing))
            step()
    chosen = {member: releases[source][1] for member, source in sources.items() if source in releases}
    policies.update(chosen.values())
    found = {
        one: apply_policy(with_traits(one, standing), chosen.get(one, Policy()), today())
        for one, standing in found.items()
    }
    return found | (_find(others, {}, policies, jobs, is_assumed=False) if others else {})


def _sources(
    commits: dict[Member, Commit], known: dict[Member, _Remembered], *, is_assumed: bool
) -> tuple[dict[Member, str], dict[Member, FleetError]]:
    """The addresses of the templates, and the errors of the services whose answers cannot be read."""
    sources = {
        one: known[one].source for one in commits if one in known and known[one].standing.commit == commits[one].id
    }
    new = [member for member in commits if member not in sources]
    if is_assumed and new:
        with suppress(Exception):  # after an error, all answers are read, and the error is reported for this service
            return dict.fromkeys(new, _source(new[0], commits)) | sources, {}
    read, errors = in_threads(lambda member: _source(member, commits), new)
    return sources | read, errors


def _batches(todo: list[tuple[Member, Commit, str]], jobs: int) -> list[Batch]:
    """Split the work evenly, so that all processes end at about the same time."""
    rounds = -(-len(todo) // (jobs * BATCH))
    size = -(-len(todo) // max(jobs * rounds, 1))
    return [tuple(todo[start : start + size]) for start in range(0, len(todo), size or 1)]


def _judged(batches: list[Batch], jobs: int) -> Iterator[tuple[Member, Standing | None]]:
    """Judge the batches in processes. None stands for a service with another template than the assumed template."""
    lost: list[Batch] = []
    for batch, standings in in_processes(_judge, batches, jobs=jobs):
        if not isinstance(standings, Failure):
            yield from zip((member for member, _, _ in batch), standings, strict=True)
        elif len(batch) > 1:
            # One of these services ended the process. Judge each of them alone.
            lost += [(one,) for one in batch]
        else:
            ((member, commit, _),) = batch
            yield member, unreadable(member, standings.why, commit.id)
    if lost:
        yield from _judged(lost, jobs)


def _judge(batch: Batch) -> list[Standing | None]:
    """Judge a batch in a process of its own: its services share the template in memory, and slow tools start once for all of them."""
    services = {commit: _open_and_render(commit, source) for _, commit, source in batch}
    _prepare([service for service in services.values() if isinstance(service, Service)])
    return [_judge_one(member, commit, source, services) for member, commit, source in batch]


def _judge_one(
    member: Member, commit: Commit, source: str, services: dict[Commit, Service | FleetError | None]
) -> Standing | None:
    from fleet.map.reader import read_facts

    # The service is removed, so that its parsed files do not stay in memory until the last service is judged.
    opened = services.pop(commit, None)
    if isinstance(opened, _OtherTemplate):
        return None
    if isinstance(opened, LimitExceeded):
        return unreadable(member, opened, commit.id)
    service = opened if isinstance(opened, Service) else None
    standing = (
        unreadable(member, opened, commit.id) if isinstance(opened, FleetError) else judge(member, commit, service)
    )
    with suppress(FleetError):  # if the host is unreachable now, the standing stays as it is
        if _is_unfinished(standing) and drop_if_damaged(member):
            commit = newest(member)
            opened = _open_and_render(commit, source)
            if isinstance(opened, _OtherTemplate):
                return None
            service = opened if isinstance(opened, Service) else None
            standing = judge(member, commit, service)
    if service and not standing.unreadable:
        # Read the facts for the map while the files are in memory. The map reports a malformed file itself.
        with suppress(FleetError, OSError):
            read_facts(commit.repository, commit.id, service)
    if service:
        service.close()  # otherwise each service whose checks read further files keeps a process of git
    return standing


def _is_unfinished(standing: Standing) -> bool:
    """Whether anything could not be judged for a reason that may lie in this machine, such as a damaged mirror."""
    return bool(standing.unreadable) or any(one.reason.startswith(ON_THIS_MACHINE) for one in standing.conventions)


def _prepare(services: list[Service]) -> None:
    for convention in conventions():
        # `check` meets the same error again, and reports it for the service that causes it.
        with suppress(Exception), limit_resources("the preparation"):
            convention.prepare(services)


def _open_and_render(commit: Commit, source: str) -> Service | FleetError | None:
    """Open and render a service whose template has this address.

    Return the error if a limit was exceeded, this machine is the cause, or the template is another. Return None after any
    other error, which `judge` meets again and reports.
    """
    try:
        with limit_resources("rendering the service"):
            service = open_service(commit)
            if service.answers.source != source:
                raise _OtherTemplate(service.answers.source)
            _ = service.expected
            service.preload()
            with suppress(FleetError):  # the conventions of the lock file meet the same error, and report it
                packages(service)
            service.close()
    except (LimitExceeded, MachineError, _OtherTemplate) as error:
        return error
    except Exception:
        return None
    return service


def _source(member: Member, commits: dict[Member, Commit]) -> str:
    """Return the address of the template. A commit that its mirror has lost is fetched anew."""
    try:
        return commits[member].answers().source
    except FleetError:
        if not drop_if_damaged(member):
            raise
        commits[member] = newest(member)
        return commits[member].answers().source


def _newest_release(source: str) -> tuple[str, Policy]:
    """Return the newest release with its commit, and the policy. Raises FleetError."""
    template = Template(source)
    template.refresh_if_possible()
    release = template.newest()
    return f"{release.version} {release.commit}", policy_of(release, known_conventions())


def _key(commit: Commit, release: str) -> list[str]:
    """Return the inputs of a standing. The day is one of them, because waivers expire and releases age.

    A policy next to fleet.toml is one of them too, because it can void waivers. The template's own policy is part of the release.
    """
    return [commit.id, release, today().isoformat(), version_of_checks(), *digest_of_chosen_policy()]


def _file(member: Member) -> Path:
    """Return the cache file of a service.

    Each service has one, so that the cache does not grow with the number of commits.
    """
    return cache() / "standings" / f"{member.key}.json"


def _recall(member: Member) -> _Remembered | None:
    try:
        written = json.loads(_file(member).read_bytes())
        return _Remembered(written["key"], written["source"], Standing.from_json(written["standing"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(member: Member, found: _Remembered) -> None:
    written: dict[str, Any] = {"key": found.key, "source": found.source, "standing": found.standing.to_json()}
    write_atomically(_file(member), json.dumps(written))


def is_breached(standings: Iterable[Standing]) -> bool:
    """Return whether any service breaks the platform's policy or cannot be read."""
    return any(standing.level == "error" for standing in standings)
