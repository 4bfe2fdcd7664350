"""The platform's conventions: what a service does alike in every team, beyond the files that the platform owns.

A convention is one small class in one of the modules here. An organisation adds its own from a package of its own, by an
entry point of the group `fleet.conventions` that names a module.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from fleet.service.service import Service

# In the order in which their findings are shown.
MODULES = (
    "ownership",
    "documentation",
    "http",
    "events",
    "migrations",
    "code",
    "tests",
    "supply",
    "workflows",
    "deployment",
    "settings",
)


@dataclass(frozen=True)
class Problem:
    """One place where a convention is not kept. `line` counts from 1; 0 is the file as a whole."""

    path: str
    what: str
    line: int = 0


class Convention(ABC):
    """What is wanted of every service. The docstring of a subclass is its reason, in one sentence."""

    # As waivers name it: kebab-case, the subject first (http-paths).
    id: ClassVar[str]
    # What to do about a finding.
    remedy: ClassVar[str]

    @property
    def reason(self) -> str:
        """Why it is wanted."""
        return " ".join((inspect.getdoc(self) or "").split())

    def prepare(self, services: "list[Service]") -> None:  # noqa: B027 (most have nothing to prepare)
        """Fill caches for many services at once, where a tool that starts once is cheaper than a start for each.

        It reports nothing. It is also called early with no service, for what a tool prepares once on a machine.
        """

    @abstractmethod
    def check(self, service: "Service") -> Iterator[Problem]:
        """Where it is not kept. Reads the service through `service` alone, which may be a commit without a checkout.

        Raises FleetError if it cannot be told, because a file is malformed.
        """


@cache
def conventions() -> tuple[Convention, ...]:
    """All of them, those of the organisation last."""
    ours = [import_module(f"fleet.conventions.{name}") for name in MODULES]
    theirs = [entry.load() for entry in sorted(entry_points(group="fleet.conventions"), key=lambda one: one.name)]
    return tuple(convention() for module in (*ours, *theirs) for convention in _in(module))


def _in(module: ModuleType) -> list[type[Convention]]:
    """In the order in which they are written."""
    return [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, Convention) and not inspect.isabstract(one)
        if one.__module__ == module.__name__
    ]
