"""The past of one service, as small JSON that is cached for each commit and its tags."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from fleet.boundaries.breaks import Break, last_breaks
from fleet.boundaries.decision import Quote, quotes
from fleet.boundaries.log import Delivery, Tag, deliveries, of_the_team, tags
from fleet.cache import cache, mark_used, version_of_checks, write_atomically
from fleet.conventions.ownership import CATALOGUE
from fleet.git.objects import Objects
from fleet.service.service import Service

PLURAL = 3
"""The most letters of a plural's ending, such as the ies of categories."""
SINGULAR = ("", "y", "f", "fe", "is")
"""The endings of a singular that the plural replaces, such as the y of category, or that the plural follows (none)."""


@dataclass(frozen=True)
class Change:
    """One delivery or deployment. `parts` are the aggregates that it changed; `by` numbers the authors of the service."""

    day: date
    commit: str
    what: str
    parts: tuple[str, ...] = ()
    by: int = 0


@dataclass(frozen=True)
class Past:
    """The part of a history that the questions need. `begin` is the first day that is known; all lists are in the order of time."""

    name: str
    owner: str
    newest: str
    begin: date
    code: tuple[Change, ...] = ()
    contracts: tuple[Change, ...] = ()
    deployments: tuple[Change, ...] = ()
    breaks: tuple[Break, ...] = ()
    record: dict[str, Quote] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=date.isoformat)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Past":
        """Read the output of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
        written = json.loads(text)
        lists: dict[str, Any] = {
            key: tuple(Change(**_dated(one)) for one in written[key]) for key in ("code", "contracts", "deployments")
        }
        breaks = tuple(Break(**_dated(one)) for one in written["breaks"])
        record = {name: Quote(**one) for name, one in written["record"].items()}
        begin = date.fromisoformat(written["begin"])
        whole: dict[str, Any] = {**written, **lists, "breaks": breaks, "record": record, "begin": begin}
        return cls(**whole)


def within(changes: Iterable[Change], window: tuple[date, date]) -> list[Change]:
    """Return the changes between two days."""
    return [one for one in changes if window[0] <= one.day <= window[1]]


def _dated(written: dict[str, Any]) -> dict[str, Any]:
    lists = {key: tuple(value) for key, value in written.items() if isinstance(value, list)}
    return {**written, **lists, "day": date.fromisoformat(written["day"])}


def recall(repository: Path, commit: str, first: date, last: date) -> Past | None:
    """Read the past of a service from the cache; None if it is not there. Raises FleetError."""
    file = _memory(repository, commit, tags(repository, first, last), first)
    try:
        past = Past.from_json(file.read_bytes())
    except (OSError, KeyError, TypeError, ValueError):
        return None
    mark_used(file)
    return past


def read(repository: Path, commit: str, first: date, last: date) -> Past:
    """Read the past of a service at a commit into the cache. Raises FleetError."""
    known_tags = tags(repository, first, last)
    past = _read(repository, commit, known_tags, first, last)
    write_atomically(_memory(repository, commit, known_tags, first), past.to_json())
    return past


def _memory(repository: Path, commit: str, known_tags: list[Tag], first: date) -> Path:
    """Return the file in the cache. The window moves on by a month, and not by a day, so that a run of the next day is fast."""
    names = " ".join(f"{one.name} {one.commit}" for one in known_tags)
    inputs = f"{repository.resolve()} {commit} {names} {first:%Y-%m} {version_of_checks()}"
    key = hashlib.sha256(inputs.encode(errors="surrogateescape")).hexdigest()
    return cache() / "pasts" / key[:2] / f"{key[2:40]}.json"


def _read(repository: Path, commit: str, known_tags: list[Tag], first: date, last: date) -> Past:
    service = Service(repository, commit, commit)
    everything = deliveries(repository, commit, first, last)
    ours = of_the_team(everything)
    parts = _parts(service)
    people = {by: number for number, by in enumerate(dict.fromkeys(one.by for one in ours))}
    ours_in_order = [_change(one, parts, people) for one in reversed(ours)]
    with_code, with_contract = ({one.id for one in ours if getattr(one, key)} for key in ("has_code", "has_contract"))
    is_born = bool(everything) and not everything[-1].parent
    objects = Objects(repository)
    try:
        breaks = tuple(last_breaks(objects, everything))
    finally:
        objects.close()
    return Past(
        service.name,
        _owner(service),
        commit,
        everything[-1].day if is_born else first,
        tuple(one for one in ours_in_order if one.commit in with_code),
        tuple(one for one in ours_in_order if one.commit in with_contract),
        tuple(_deployments(known_tags, everything, {one.id for one in ours})),
        breaks,
        quotes(service),
    )


def _owner(service: Service) -> str:
    """Return the owner in the catalogue, or in the answers, without the organisation: @shop/billing-team is billing-team."""
    specs = [
        one.get("spec") for one in service.yaml(CATALOGUE) if isinstance(one, dict) and one.get("kind") == "Component"
    ]
    written = next((one["owner"] for one in specs if isinstance(one, dict) and one.get("owner")), None)
    return re.split("[@:/]", str(written or service.answers.values.get("owner") or ""))[-1]


def _parts(service: Service) -> list[str]:
    """Return the aggregates: the modules of the domain."""
    modules = service.files(f"src/{service.package}/domain/*.py")
    return [stem for stem in (Path(path).stem for path in modules) if not stem.startswith("_")]


def _change(one: Delivery, parts: list[str], people: dict[str, int]) -> Change:
    stems = {Path(path).stem for path in one.paths if path.startswith("src/") and "/migrations/" not in path}
    changed = sorted({part for stem in stems if (part := _part_of(stem, parts))})
    return Change(one.day, one.id, one.subject, tuple(changed), people[one.by])


def _part_of(stem: str, parts: Iterable[str]) -> str:
    """Return the aggregate of a module: invoices, invoice_queries and invoice_reminders are parts of invoices."""
    found = max(parts, key=lambda part: (stem == part, _shared(stem, part)), default="")
    shared = _shared(stem, found)
    is_form = stem[shared:].partition("_")[0] in SINGULAR and len(found) - shared <= PLURAL
    return found if found and (stem == found or (is_form and shared >= PLURAL)) else ""


def _shared(one: str, other: str) -> int:
    """Return the number of letters with which both names begin."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _deployments(known: list[Tag], newest_first: list[Delivery], ours: set[str]) -> Iterable[Change]:
    """Yield the tags with work of the team since the tag before. A tag on another branch is always a deployment."""
    order = {one.id: number for number, one in enumerate(reversed(newest_first))}
    commits = [one.id for one in reversed(newest_first)]
    before = -1
    for tag in known:
        at = order.get(tag.commit)
        if at is None or any(one in ours for one in commits[before + 1 : at + 1]):
            yield Change(tag.day, tag.commit, tag.name)
        before = max(before, at if at is not None else -1)
