"""The table of all messages of a service: found in messaging/, and checked when the process starts."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from functools import cached_property
from itertools import chain
from types import ModuleType
from typing import Any, Literal, TypeVar

from chassis.discovery import has_module, modules_in
from chassis.messages.lines import Contract, CurrentState, Event, Handler, Job, OnEvent, OnJob
from chassis.messages.names import DEFAULT_QUEUE, NAME, QUEUE, name_of, queue_owner

LONGEST_TIMEOUT = timedelta(hours=1)
LONGEST_SHARED_TIMEOUT = timedelta(minutes=5)
"""Five attempts of this length end before RabbitMQ takes a message back that is not acknowledged within half an hour."""

_LEFT_OUT = (
    "{} has lines in OUTGOING or INCOMING of messaging/, and its answer messaging_style is sync, so the chassis here cannot "
    "send or take messages: remove the lines, or turn messaging on by `fleet update -d messaging_style=…`"
)

K = TypeVar("K")
V = TypeVar("V")


class Unknown(LookupError):
    """This service handles no messages of this name."""


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
