"""The messages that a service sends and handles: their contracts, and the lines of OUTGOING and INCOMING."""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from functools import cached_property
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from chassis.discovery import has_module, modules_in

if TYPE_CHECKING:  # an optional part
    from chassis.schedules import Schedule

NAME = re.compile(r"[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*\.v[1-9][0-9]*")
QUEUE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
DEFAULT_QUEUE = "default"
LONGEST_TIMEOUT = timedelta(hours=1)
LONGEST_SHARED_TIMEOUT = timedelta(minutes=5)
"""Five attempts of this length end before RabbitMQ takes a message back that is not acknowledged within half an hour."""
_CLASS = re.compile(r"(?P<words>[A-Z][A-Za-z0-9]*?)V(?P<version>[1-9][0-9]*)")

_LEFT_OUT = (
    "{} has lines in OUTGOING or INCOMING of messaging/, and its answer messaging_style is sync, so the chassis here cannot "
    "send or take messages: remove the lines, or turn messaging on by `fleet update -d messaging_style=…`"
)

K = TypeVar("K")
V = TypeVar("V")


class Contract(BaseModel):
    """The body of a message, as JSON. The class is named after the event or the job, and its version: `PaidV1`.

    Within a version only optional fields may be added, and readers ignore fields that they do not know. Any other
    change is a new class with the next number. Publish both classes until no service consumes the old one.
    """

    model_config = ConfigDict(
        frozen=True, from_attributes=True, extra="ignore", hide_input_in_errors=True, serialize_by_alias=True
    )


class Unknown(LookupError):
    """This service handles no messages of this name."""


Handler = Callable[[Any, Any], Awaitable[None]]
"""`async def on_paid(event: PaidV1, uow: UnitOfWork)`: calls one use case and lets errors rise."""


@dataclass(frozen=True)
class Event:
    """Map a domain event to the contract that it is published as.

    Events about one `aggregate` are published in order for each value of the domain event's attribute `key`.
    """

    happened: type
    contract: type[Contract]
    aggregate: str
    key: str


@dataclass(frozen=True)
class Job:
    """Map a request to the contract of the job that it is sent as.

    `to` is the service whose work queue receives the job, or one of its further queues, as in `billing--reports`; by default
    this service, and the queue that its own OnJob line names.
    """

    wanted: type
    contract: type[Contract]
    to: str | None = None


@dataclass(frozen=True)
class OnEvent:
    """An event that this service consumes, by its name: `<service>.<event-name>.v<N>`.

    The contract needs only the fields that the handler reads.
    """

    name: str
    contract: type[Contract]
    handler: Handler


@dataclass(frozen=True)
class OnJob:
    """A job that this service processes, from any sender.

    A job with a `queue` waits apart from all others, and may have a worker of its own (`work --queue reports`). The name of
    the queue is part of the name of the job: `billing--reports.render-report.v1`. `timeout` replaces MESSAGE_TIMEOUT_SECONDS.
    A timeout of more than 5 minutes needs a queue, and none is longer than an hour.

    With a `schedule` the worker also enqueues the job by itself, once for each due time, whatever number of workers runs.
    The contract then has the field `due_at`, and no other field without a default.
    """

    contract: type[Contract]
    handler: Handler
    schedule: "Schedule | None" = None
    queue: str = ""
    timeout: timedelta | None = None
    on_parked: Callable[[Any, Any, str], Awaitable[None]] | None = None
    """Called with the message, the unit of work and the reason, in the commit that parks a message of this line."""


class StateReader(Protocol):
    """Read the states whose ids come after `after`, at most `limit`, in the order of their ids.

    The states must stay unchanged until the transaction ends: select the rows with FOR SHARE.
    """

    async def __call__(self, uow: Any, /, *, after: UUID, limit: int) -> Sequence[object]: ...


@dataclass(frozen=True)
class CurrentState:
    """The state of all aggregates of one kind, as events that have a line in OUTGOING: `republish <name>` publishes them."""

    name: str
    read: StateReader


@dataclass(frozen=True)
class Route:
    """The destination of an outgoing object. `aggregate` and `key` are None for a job, because jobs have no order."""

    kind: Literal["event", "job"]
    name: str
    contract: type[Contract]
    aggregate: str | None
    key: str | None


@dataclass(frozen=True)
class Receiver:
    """The handler and the contract of the messages of one name."""

    kind: Literal["event", "job"]
    name: str
    contract: type[Contract]
    handler: Handler
    queue: str = ""
    timeout_seconds: float | None = None
    """The time limit of the handler, in place of MESSAGE_TIMEOUT_SECONDS."""
    on_parked: Callable[[Any, Any, str], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Messages:
    """All lines of `OUTGOING`, `INCOMING` and `STATES` of one service.

    One event may be published as several messages, for example as an old and a new version. Raises ValueError for lines
    that cannot work: two lines for one message, a contract without a version, a key that the event does not have, a
    schedule whose contract is not made from a due time alone.
    """

    service: str
    outgoing: tuple[Event | Job, ...] = ()
    incoming: tuple[OnEvent | OnJob, ...] = ()
    states: tuple[CurrentState, ...] = ()
    sagas: Any = None
    """The chassis.sagas.Sagas of the service, or None."""

    def __post_init__(self) -> None:
        _ = self.routes, self.receivers, self.schedules  # at the start, rather than at the first message
        _one_line_each((state.name, state) for state in self.states)
        if self and not has_module("chassis.messaging.part"):
            raise ValueError(_LEFT_OUT.format(self.service))

    @cached_property
    def routes(self) -> dict[type, list[Route]]:
        """The routes of each outgoing object, by its class."""
        found: dict[type, list[Route]] = {}
        for sent, route in self._routes():
            found.setdefault(sent, []).append(route)
        for sent, routes in found.items():
            if len(routes) > 1 and any(route.kind == "job" for route in routes):
                raise ValueError(
                    f"{sent.__name__} has two lines in OUTGOING, but a job has one destination: keep one line"
                )
        _one_line_each((route.name, route) for route in chain(*found.values()))
        return found

    @cached_property
    def receivers(self) -> dict[str, Receiver]:
        """The receivers, by the name of the message."""
        return _one_line_each((receiver.name, receiver) for receiver in self._receivers())

    @cached_property
    def schedules(self) -> dict[str, OnJob]:
        """The lines with a schedule, by the name of the job."""
        found = {}
        for line in self.incoming:
            if isinstance(line, OnJob) and line.schedule is not None:
                needed = {name for name, field in line.contract.model_fields.items() if field.is_required()}
                if "due_at" not in line.contract.model_fields or needed - {"due_at"}:
                    raise ValueError(
                        f"{line.contract.__name__} is the contract of a job with a schedule, so the field due_at is its only "
                        "field without a default: write due_at: fields.Timestamp, and give the other fields defaults"
                    )
                found[self._name_of_job(line)] = line
        return found

    @cached_property
    def queues(self) -> list[str]:
        """The names of all queues except the default queue."""
        return sorted({receiver.queue for receiver in self.receivers.values()} - {""})

    def longest_timeout(self, queues: Collection[str]) -> float:
        """Return the longest `timeout` of the lines of these queues, in seconds; 0 if no line has a timeout."""
        lines = [receiver for receiver in self.receivers.values() if receiver.queue in queues]
        return max((receiver.timeout_seconds or 0 for receiver in lines), default=0)

    def receiver(self, name: str) -> Receiver:
        """Find the receiver of the messages of that name. Raises Unknown."""
        found = self.receivers.get(name)
        if found is None:
            raise Unknown(f"{name} has no line in INCOMING of messaging/: add one")
        return found

    def __bool__(self) -> bool:
        return bool(self.outgoing or self.incoming)

    def _routes(self) -> Iterator[tuple[type, Route]]:
        for line in self.outgoing:
            if isinstance(line, Event):
                known = [field.name for field in fields(line.happened)] if is_dataclass(line.happened) else []
                if line.key not in known:
                    raise ValueError(
                        f"{line.happened.__name__} has no attribute {line.key!r} to order its events by: name another "
                        "key in OUTGOING"
                    )
                name = name_of(self.service, line.contract)
                yield line.happened, Route("event", name, line.contract, line.aggregate, line.key)
            else:
                name = name_of(line.to or self._owners.get(line.contract, self.service), line.contract)
                yield line.wanted, Route("job", name, line.contract, None, None)
        for name, line in self.schedules.items():
            yield line.contract, Route("job", name, line.contract, None, None)

    def _receivers(self) -> Iterator[Receiver]:
        for line in self.incoming:
            if isinstance(line, OnEvent):
                if NAME.fullmatch(line.name) is None:
                    raise ValueError(
                        f"{line.name!r} in INCOMING is not the name of an event: write <service>.<event-name>.v<N>"
                    )
                yield Receiver("event", line.name, line.contract, line.handler)
            else:
                _check_queue(line)
                seconds = None if line.timeout is None else line.timeout.total_seconds()
                name = self._name_of_job(line)
                yield Receiver("job", name, line.contract, line.handler, line.queue, seconds, line.on_parked)

    @cached_property
    def _owners(self) -> dict[type[Contract], str]:
        """The first part of the name of each job that this service processes."""
        lines = [line for line in self.incoming if isinstance(line, OnJob)]
        return {line.contract: queue_owner(self.service, line.queue) for line in lines}

    def _name_of_job(self, line: OnJob) -> str:
        return name_of(queue_owner(self.service, line.queue), line.contract)


def name_of(service: str, contract: type[Contract]) -> str:
    """Name a message: `billing.invoice-issued.v1` for the service billing and a contract named InvoiceIssuedV1."""
    found = _CLASS.fullmatch(contract.__name__)
    if found is None:
        raise ValueError(
            f"{contract.__name__} names no version: end the name of a contract with its version, as in InvoiceIssuedV1"
        )
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", found["words"]).lower()
    return f"{service}.{words}.v{found['version']}"


def queue_owner(service: str, queue: str) -> str:
    """Return the first part of the names of the jobs in a queue. Brokers name streams, groups and queues after it.

    No service has two hyphens in its name, so this is the name of no other service.
    """
    return f"{service}--{queue}" if queue else service


def _check_queue(line: OnJob) -> None:
    name = line.contract.__name__
    if line.queue and (QUEUE.fullmatch(line.queue) is None or line.queue == DEFAULT_QUEUE):
        raise ValueError(
            f"{line.queue!r} cannot be the queue of {name}: write a short name in lower case, as in reports. {DEFAULT_QUEUE} is "
            "the queue of the lines that name none"
        )
    if line.timeout is not None and not timedelta(0) < line.timeout <= LONGEST_TIMEOUT:
        raise ValueError(
            f"the timeout of {name} is {line.timeout}: write a time of up to an hour, and divide longer work into several jobs"
        )
    if line.timeout is not None and line.timeout > LONGEST_SHARED_TIMEOUT and not line.queue:
        raise ValueError(
            f"the timeout of {name} is {line.timeout}, and the job would hold up all other jobs: give it a queue of its own "
            "(queue=…), or a timeout of up to 5 minutes"
        )


def messages_in(package: ModuleType, *, service: str) -> Messages:
    """Find the OUTGOING, INCOMING, STATES and SAGAS lines of every module below the package, so that a new file is used."""
    outgoing: list[Event | Job] = []
    incoming: list[OnEvent | OnJob] = []
    states: list[CurrentState] = []
    sagas = None
    for module in modules_in(package):
        outgoing += getattr(module, "OUTGOING", [])
        incoming += getattr(module, "INCOMING", [])
        states += getattr(module, "STATES", [])
        sagas = getattr(module, "SAGAS", sagas)
    if sagas is not None:
        outgoing += sagas.outgoing
        incoming += sagas.incoming
    return Messages(service, tuple(outgoing), tuple(incoming), tuple(states), sagas)


def _one_line_each(pairs: Iterable[tuple[K, V]]) -> dict[K, V]:
    found: dict[K, V] = {}
    for name, line in pairs:
        if name in found:
            raise ValueError(f"{getattr(name, '__name__', name)} has two lines: keep one line")
        found[name] = line
    return found


NO_MESSAGES = Messages("")
"""The messages of a service that only answers HTTP requests."""
