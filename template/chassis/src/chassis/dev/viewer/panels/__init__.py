"""Commands of a service behind the page: a list, and the decisions of a reader. Each module here adds a panel to the page."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """Commands of a service, as arguments of `python -m <service>`."""

    entry: str
    """The name of an entry of the list, for sentences: `a parked message`."""
    listing: tuple[str, ...]
    """The command that prints the list as JSON."""
    decisions: Mapping[str, tuple[str, ...]]
    """The commands by name. Each takes the id of an entry as its last argument."""


PARKED = Panel(
    "a parked message",
    ("parked", "list", "--format", "json"),
    {"replay": ("parked", "replay"), "drop": ("parked", "drop")},
)
