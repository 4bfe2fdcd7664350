"""Read one table of policy.toml. Each refusal names the table and the value, the rule, and the remedy."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any

from fleet.errors import FleetError

# The longest name or sentence.
MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Table:
    """A table. `where` names it for people.

    `conventions` are the ids of all conventions; without them every name is accepted, because the `fleet` of an older service
    may meet a newer policy.
    """

    where: str
    values: Any
    conventions: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.values, dict):
            raise FleetError(f"{self.where} is {self.values!r}, and has to be a table: write its keys below its name")

    @property
    def is_strict(self) -> bool:
        return self.conventions is not None

    def allow(self, *keys: str) -> None:
        """Refuse a table with any other key. Raises FleetError."""
        if self.is_strict and (unknown := sorted(set(self.values) - set(keys))):
            hint = suggest(unknown[0], keys)
            raise FleetError(f"{self.where} has the unknown key {unknown[0]!r}{hint}: write only {', '.join(keys)}")

    def table(self, key: str) -> "Table":
        return replace(self, where=f"{self.where}: [{key}]", values=self.values.get(key, {}))

    def tables(self, key: str) -> list["Table"]:
        found = self.values.get(key, [])
        if not isinstance(found, list):
            raise FleetError(f"{self.where}: {key} is not a list: write [[{key}]] with two brackets")
        return [replace(self, where=f"{self.where}: {key} {number}", values=one) for number, one in enumerate(found, 1)]

    def text(self, key: str, *, is_required: bool = False) -> str:
        found = self.values.get(key, "")
        if not _is_text(found) or (is_required and not found):
            raise self.wrong(key, f"has to be a text of 1 to {MOST_CHARACTERS} characters on one line")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """Read a text, a whole number, or a list of them as texts."""
        found = self.values.get(key, [])
        listed = found if isinstance(found, list) else [found]
        is_valid = all((isinstance(one, int) and not isinstance(one, bool)) or _is_text(one) for one in listed)
        if not is_valid or "" in listed or (key in self.values and not listed):
            raise self.wrong(key, 'has to be a text or a list of texts, as ["a", "b"]')
        return tuple(map(str, listed))

    def day(self, key: str) -> date | None:
        found = self.values.get(key)
        if found is not None and (not isinstance(found, date) or isinstance(found, datetime)):
            raise self.wrong(key, "has to be a day without quotes, as 2027-03-01")
        return found

    def days(self, key: str) -> int | None:
        found = self.values.get(key)
        if found is not None and (not isinstance(found, int) or isinstance(found, bool) or found < 0):
            raise self.wrong(key, "has to be a number of days, as 90")
        return found

    def wrong(self, key: str, rule: str) -> FleetError:
        return FleetError(f"{self.where}: {key} {rule}; it is {self.values.get(key, '')!r}")

    def check_ids(self, ids: Iterable[str], *, wildcard: str = "") -> tuple[str, ...]:
        """Return the ids if each is the id of a convention, or the wildcard. Raises FleetError otherwise.

        Where the conventions are not known, every id is accepted.
        """
        listed = tuple(ids)
        known = self.conventions
        unknown = [] if known is None else [one for one in listed if one not in known and one != wildcard]
        if unknown:
            raise FleetError(
                f"{self.where} names the convention {unknown[0]!r}, which does not exist{suggest(unknown[0], known or ())}: "
                "write an id of docs/reference/conventions.md, or install the conventions of your organisation"
            )
        return listed


def suggest(name: str, known: Iterable[str]) -> str:
    """Name the nearest of the known names, if there is one."""
    nearest = get_close_matches(name, list(known), n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS and value.isprintable() and value == value.strip()
