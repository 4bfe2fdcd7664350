"""Commands of a service behind the page: a list, and the decisions of a reader. Each module here adds a panel to the page."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """Commands of a service, as arguments of `python -m <service>`."""

    entry: str
    """What the list has, for sentences: `a parked message`."""
    listing: tuple[str, ...]
    """Prints a JSON list."""
    decisions: Mapping[str, tuple[str, ...]]
    """Each takes the id of an entry as its last argument."""


PARKED = Panel(
    "a parked message",
    ("parked", "list", "--format", "json"),
    {"replay": ("parked", "replay"), "drop": ("parked", "drop")},
)
