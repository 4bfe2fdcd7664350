"""The lines that a team writes in messaging/: each maps an event or a job to its contract or to its handler."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:  # an optional part
    from chassis.schedules import Schedule


class Contract(BaseModel):
    """The body of a message, as JSON. The class is named after the event or the job, and its version: `PaidV1`.

    Within a version only optional fields may be added, and readers ignore fields that they do not know. Any other
    change is a new class with the next number. Publish both classes until no service consumes the old one.
    """

    model_config = ConfigDict(
        frozen=True, from_attributes=True, extra="ignore", hide_input_in_errors=True, serialize_by_alias=True
    )


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
