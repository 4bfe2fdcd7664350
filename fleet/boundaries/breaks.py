"""Find the last change that broke each contract of a service: the API, and the messages."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from fleet.boundaries.log import Delivery, short
from fleet.errors import FleetError
from fleet.git.objects import Objects
from fleet.judges.openapi_diff import find_breaking_changes
from fleet.schemas.compatibility import differences
from fleet.service.asyncapi import MESSAGES, RETIRED
from fleet.service.openapi import SPEC, Document

MOST_COMPARED = 50
"""The most deliveries whose contracts are compared: without a break, the search would read the whole history."""

HTTP, MESSAGING = "HTTP", "messages"
SHAPE = (AttributeError, LookupError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True)
class Break:
    """The last delivery that broke a contract. Without a break, `day` is the day since which the contract was kept."""

    contract: str
    day: date
    commit: str = ""
    what: str = ""


def last_breaks(objects: Objects, newest_first: list[Delivery]) -> Iterator[Break]:
    """Find the last break of each contract that the service has. A document that cannot be read breaks nothing."""
    for contract, is_of, compare in (
        (HTTP, lambda path: path == SPEC, _api),
        (MESSAGING, lambda path: path.startswith(MESSAGES), _messages),
    ):
        changes = [one for one in newest_first if one.parent and any(map(is_of, one.paths))][:MOST_COMPARED]
        for one in changes:
            if what := _first(compare, objects, one):
                yield Break(contract, one.day, one.id, short(what.encode()))
                break
        else:
            if any(any(map(is_of, one.paths)) for one in newest_first):
                yield Break(contract, (changes or newest_first)[-1].day)


def _first(compare: Callable[[Objects, Delivery], Iterator[str]], objects: Objects, delivery: Delivery) -> str:
    try:
        return next(compare(objects, delivery), "")
    except (FleetError, *SHAPE):
        return ""


def _api(objects: Objects, delivery: Delivery) -> Iterator[str]:
    old, new = (_json(objects, commit, SPEC) for commit in (delivery.parent, delivery.id))
    if old is None:
        return
    if new is None:
        yield f"{SPEC} is gone"
        return
    before, after = Document(old), Document(new)
    if before.version.startswith("3.1.") and after.version.startswith("3.1."):
        yield from (
            f"{one.operation}: {one.what}" if one.operation else one.what
            for one in find_breaking_changes(before, after)
        )


def _messages(objects: Objects, delivery: Delivery) -> Iterator[str]:
    """Yield what broke in the published schemas. A job that accepts more than before, and a retired message, break nothing."""
    retired = (_read(objects, delivery.id, RETIRED) or b"").decode(errors="replace").split()
    for path in (path for path in delivery.paths if path.startswith(MESSAGES)):
        old, new = (_json(objects, commit, path) for commit in (delivery.parent, delivery.id))
        name = path.removeprefix(MESSAGES).removesuffix(".json")
        if old is not None and new is None and name not in retired:
            yield f"{name} is gone"
        elif old is not None and new is not None:
            is_job = new.get("x-kind") == "job"
            yield from (f"{name}: {one}" for one in differences(old, new) if not (is_job and one.wider))


def _json(objects: Objects, commit: str, path: str) -> Any:
    content = _read(objects, commit, path)
    return None if content is None else json.loads(content)


def _read(objects: Objects, commit: str, path: str) -> bytes | None:
    blob = objects.find(f"{commit}:{path}", "blob")
    return None if blob is None else objects.read(blob)
