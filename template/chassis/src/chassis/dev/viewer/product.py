"""The interface between the page and a program that runs several services, such as `fleet up`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

ACTIONS = ("start", "stop", "restart")


class RefusedAction(Exception):
    """A sentence for the reader of the page, such as why a service does not start."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A service as the page shows it. An empty text means that the page shows nothing in its place."""

    name: str
    state: Literal["starting", "ready", "unready", "broken", "stopped", "stub"]
    """A stub answers from the API document of a service that does not run."""
    doing: str = ""
    """The step of a start that is under way, such as installing."""
    url: str = ""
    docs_url: str = ""
    version: str = ""
    migration: str = ""
    """The newest migration that the database has."""
    restarts: int = 0
    memory_bytes: int = 0
    checkout: str = ""
    """The folder of the service."""
    psql: str = ""
    """A command line that opens the database."""
    problem: str = ""
    """The traceback of the last failed start, or another reason for the state."""
    panels: tuple[str, ...] = ()
    """The optional panels that have something to show for the service, by the names of their modules."""


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """A use of one service by another that their documents declare."""

    source: str
    target: str
    kind: Literal["http", "message"]
    name: str = ""
    """For messages the name of the message, such as `orders.order-placed.v1`. Empty for HTTP."""


class Product(Protocol):
    """The services that run together. The viewer calls these methods from threads of its own, several at a time."""

    @property
    def command(self) -> str:
        """How a person started the program: the page names this command when the program has stopped."""
        ...

    def services(self) -> Sequence[ServiceState]:
        """Return the present states, in the order of the page. The page asks often, so this has to be quick."""
        ...

    def declared(self) -> Collection[Edge] | None:
        """Return the edges that the services' documents declare, or None if they are not known."""
        ...

    def act(self, service: str, action: str) -> None:
        """Do one of ACTIONS, and return when the action is done or under way. Raises RefusedAction."""
        ...

    def run(self, service: str, *arguments: str) -> str:
        """Run `python -m <service> ARGUMENTS` with the service's settings. Return its output. Raises RefusedAction."""
        ...
