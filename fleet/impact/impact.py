"""Find the services that a change breaks: compare their expectations with a service before and after the change."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet.check.findings import Finding, Level
from fleet.errors import FleetError
from fleet.impact.change import Change, State
from fleet.map.facts import USES, Facts
from fleet.map.message_findings import PILE, SILENCE, compare, unfit
from fleet.map.model import Edge, Kind, MapFinding
from fleet.map.reader import read_members, read_service
from fleet.map.uses import REMEDY, WHY, Misfit, misfits
from fleet.map.waivers import apply_waiver
from fleet.processes.resource_limits import LimitExceeded, limit_resources
from fleet.service import asyncapi
from fleet.service.fleet_toml import Member
from fleet.service.openapi import SPEC, Document
from fleet.service.service import Service

# The most findings of one service: a hostile service could have a hundred thousand, and texts of megabytes.
MOST_OF_SERVICE = 100
LONGEST_TEXT = 500
MORE = f"there are more than {MOST_OF_SERVICE} places like this"

READING = "reading the service"


@dataclass(frozen=True)
class Breakage:
    """A need of another service that this service does not meet any more.

    `path` and `line` are in the other service's repository; the path and line of the finding are in this service.
    """

    service: str
    by: str
    path: str
    line: int
    finding: Finding


@dataclass(frozen=True)
class Impact:
    """The impact of a change. `compared` are the services that rely on this service, by what they have committed.

    `unknown` are the reasons why more may break, by service. `is_listed` is whether fleet.toml lists this service.
    """

    service: str
    is_listed: bool
    compared: tuple[str, ...]
    unknown: dict[str, str]
    broken: list[Breakage]


def find_impact(path: Path, base: str | None, members: list[Member], jobs: int | None = None) -> Impact:
    """Compare the working copy of a service with the commit where it branched off the base. Raises FleetError."""
    service = Service(path, None, base)
    if service.base is None:
        raise FleetError(
            f"{service.root} has no remote branch to compare with: name the commit before the change by --base"
        )
    now = _state(service)
    before, unknown = _state_before(service.base, now.facts.name)
    change = Change(before, now, read_members(members, jobs))
    _refuse_missing_documents(change, now)
    unknown |= {name: f"cannot be read: {why}" for name, why in change.fleet.unread.items() if name != change.own}
    reason = f"calls {change.own} without specs/uses, so its expectations are not known"
    unknown |= dict.fromkeys(change.untyped_callers, reason)
    is_listed = change.own in (*change.fleet.services, *change.fleet.unread)
    shown = {_short(name): _short(why) for name, why in unknown.items()}
    return Impact(change.own, is_listed, tuple(map(_short, change.reliant)), shown, breakages(change))


def _state(service: Service) -> State:
    with limit_resources(READING):
        return State(read_service(service), service.json(SPEC))


def _state_before(base: Service, name: str) -> tuple[State, dict[str, str]]:
    """Read the service at the base. A base that cannot be read counts as empty, so that a change can repair the service."""
    try:
        return _state(base), {}
    except FleetError as error:
        why = f"cannot be read, so what broke before the change is not known: {error}"
        return State(Facts(name)), {f"{name} at the base": why}


def _refuse_missing_documents(change: Change, now: State) -> None:
    if now.facts.is_silent:
        raise FleetError(f"the code has messages, and {asyncapi.SPEC} is missing: run `make specs`, and commit specs/")
    if change.callers and now.api is None:
        raise FleetError(f"{SPEC} is missing, and other services use the API: run `make specs`, and commit specs/")


def breakages(change: Change) -> list[Breakage]:
    """Return what breaks, errors first, and of each service no more than anybody reads."""
    found = [*_calls(change), *_messages(change)]
    numbers: Counter[str] = Counter()
    kept = []
    for one in sorted(found, key=lambda one: list(Level).index(one.finding.level)):
        numbers[one.service] += 1
        if numbers[one.service] <= MOST_OF_SERVICE:
            kept.append(one)
        elif numbers[one.service] == MOST_OF_SERVICE + 1:
            kept.append(replace(one, line=0, finding=replace(one.finding, reason=MORE)))
    return kept


def _calls(change: Change) -> Iterator[Breakage]:
    """Compare the uses of each caller with the API document before and after the change."""
    documents: tuple[dict[str, Document], dict[str, Document]] = {}, {}
    for caller, name, used in change.callers if change.has_other_api else ():
        path = f"{USES}{name}.json"
        new: list[Misfit] = []
        try:
            with limit_resources(f"comparing the calls of {caller}"):
                known = set(misfits(used, change.own, change.before, documents[0]))
                for one in misfits(used, change.own, change.now, documents[1], _text(change, caller, path)):
                    if one not in known or one.level is not Level.ERROR:
                        new.append(one)
        except LimitExceeded as error:
            new.append(Misfit(str(error), Level.WARNING))
        for one in new:
            remedy = REMEDY.format(caller=caller, name=name)
            finding = Finding("map-call-unfit", SPEC, one.what, remedy, one.level, one.line, WHY)
            yield _breakage(change, caller, "HTTP", (path, one.used_line), finding)


def _text(change: Change, service: str, path: str) -> str:
    """Read a file of another service, for its lines; empty if the file cannot be read."""
    try:
        repository, commit = change.fleet.places[service]
        return Service(repository, commit or None).text(path)
    except (FleetError, KeyError):
        return ""


def _messages(change: Change) -> Iterator[Breakage]:
    """Compare the schemas of each message before and after the change, and find messages that are gone."""
    known, unmet = compare(change.before), compare(change.now)
    met = {(edge.kind, edge.name, change.reliant_of(edge)) for edge in known}
    for edge in (*change.now.of(Kind.EVENT), *change.now.of(Kind.JOB)):
        other = change.reliant_of(edge)
        if other == change.own:
            continue
        if edge.is_open and (edge.kind, edge.name, other) in met:
            yield _of_message(change, edge, _gone(change.own, other, edge))
        elif change.own in (edge.source, edge.target) and not edge.is_open and change.has_changed(edge.name):
            new = [one for one in unmet[edge] if not one.sure or one not in known.get(edge, ())]
            for one in unfit(edge, new):
                yield _of_message(change, edge, one.finding)


def _gone(own: str, other: str, edge: Edge) -> Finding:
    if edge.kind is Kind.EVENT:
        id_, needs, no_longer, why = "map-event-unpublished", "listens to", "publishes", SILENCE
    else:
        id_, needs, no_longer, why = "map-job-undone", "sends", "processes", PILE
    reason = f"{other} {needs} {edge.name}, which {own} no longer {no_longer}"
    return Finding(id_, "", reason, f"undo the change until {other} has moved to another message", why=why)


def _of_message(change: Change, edge: Edge, finding: Finding) -> Breakage:
    other = change.reliant_of(edge)
    path, line = change.place(change.own, edge.name)
    return _breakage(change, other, "message", change.place(other, edge.name), replace(finding, path=path, line=line))


def _breakage(change: Change, service: str, by: str, place: tuple[str, int], finding: Finding) -> Breakage:
    shown = apply_waiver(change.now, MapFinding((change.own, service), finding)).finding
    shown = replace(shown, reason=_short(shown.reason), remedy=_short(shown.remedy))
    return Breakage(_short(service), by, _short(place[0]), place[1], shown)


def _short(text: Any) -> str:
    """Return a text of another repository as one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}…"
