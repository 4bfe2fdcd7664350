"""The traits of a service by which the policy groups services: owner, domain and tier."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# The longest trait that is shown. The template allows 63 characters for a team.
MOST_CHARACTERS = 100
MOST_NUMBER = 10**9


@dataclass(frozen=True)
class Traits:
    """The traits of one service. A trait that the service does not state is empty."""

    owner: str = ""
    domain: str = ""
    tier: str = ""


def find_traits(answers: Mapping[str, Any], catalogue: Iterable[Any], name: str) -> Traits:
    """Find the traits in the answers and in the catalogue's Component of this name."""
    components = [one for one in catalogue if isinstance(one, dict) and one.get("kind") == "Component"]
    return Traits(
        _text(answers.get("owner")),
        _text(answers.get("domain")),
        next((_tier(one) for one in components if _table(one, "metadata").get("name") == name), ""),
    )


def _tier(component: dict[str, Any]) -> str:
    """Return `tier` of spec, labels or annotations. In labels and annotations a prefix may precede it: acme.example/tier."""
    metadata = _table(component, "metadata")
    for table in (_table(component, "spec"), _table(metadata, "labels"), _table(metadata, "annotations")):
        for key, value in table.items():
            if str(key).rpartition("/")[2] == "tier" and _text(value):
                return _text(value)
    return ""


def parse_trait(value: Any) -> str:
    """Return a trait that somebody has written; empty unless it is a text or a whole number on one line."""
    text = _text(value)
    return text if text == str(value) and text.isprintable() else ""


def _table(parent: dict[str, Any], key: str) -> dict[str, Any]:
    found = parent.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    """Return a text or a whole number as text on one line; empty for any other value."""
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST_NUMBER
    return " ".join(str(value).split())[:MOST_CHARACTERS] if is_number or isinstance(value, str) else ""
