"""The platform's conventions: rules that the services of all teams keep, beyond the files that the platform owns.

A convention is one small class in one of the modules here. An organisation adds conventions in a package of its own, by an
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

# The modules with conventions, in the order in which findings are shown.
MODULES = (
    "ownership",
    "documentation",
    "http",
    "events",
    "migrations",
    "code",
    "tests",
    "committed_secrets",
    "packages",
    "workflows",
    "overlays",
    "availability",
    "hardening",
    "settings",
)


@dataclass(frozen=True)
class Problem:
    """One place where a convention is not kept. `line` counts from 1; 0 is the file as a whole."""

    path: str
    what: str
    line: int = 0


class Convention(ABC):
    """A rule for every service. The docstring of a subclass is the reason of the rule, in one sentence."""

    # The name in findings and waivers: kebab-case, the subject first (http-paths).
    id: ClassVar[str]
    # The remedy of every finding.
    remedy: ClassVar[str]

    @property
    def reason(self) -> str:
        """The reason of the convention, for people."""
        return " ".join((inspect.getdoc(self) or "").split())

    def prepare(self, services: "list[Service]") -> None:  # noqa: B027 (most have nothing to prepare)
        """Fill caches for many services at once, so that a slow tool starts once. Report nothing.

        A run also calls this at its start with an empty list, so that a tool can do what it does once on each machine.
        """

    @abstractmethod
    def check(self, service: "Service") -> Iterator[Problem]:
        """Find the places where the service does not keep the convention.

        Read files through `service` only, because the service may be a commit without a checkout. Raises FleetError if a
        malformed file prevents the judgement.
        """


@cache
def conventions() -> tuple[Convention, ...]:
    """Return all conventions: the platform's, then the organisation's."""
    platform = [import_module(f"fleet.conventions.{name}") for name in MODULES]
    entries = sorted(entry_points(group="fleet.conventions"), key=lambda one: one.name)
    organisation = [entry.load() for entry in entries]
    return tuple(convention() for module in (*platform, *organisation) for convention in _classes(module))


def _classes(module: ModuleType) -> list[type[Convention]]:
    """Return the conventions of a module, in the order in which they are written."""
    return [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, Convention) and not inspect.isabstract(one)
        if one.__module__ == module.__name__
    ]
