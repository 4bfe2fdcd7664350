"""The transactional outbox: a message is a row in the same commit as the change that it announces.

The columns of the outbox are in database/migrations/versions/chassis_0001_messages.py. relay_queries.py reads the rows for the relay.
"""

from collections.abc import Sequence
from datetime import timedelta

from uuid_utils.compat import uuid7

from chassis.brokers import Kind
from chassis.database import Executor
from chassis.database.unit_of_work import Unlisted
from chassis.messages import Messages
from chassis.messaging.topology import topology_of
from chassis.telemetry import trace_context

__all__ = ["CHANNEL", "Outbox", "Unlisted"]

CHANNEL = "chassis_outbox"
"""The channel that Postgres notifies when rows were committed."""

_STORE = """
    INSERT INTO chassis.outbox (id, kind, aggregatetype, aggregateid, type, payload, traceparent, tracestate, not_before, republished,
        subject, saga)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp() + $9::interval, $10, $11, $12)
"""


class Outbox:
    """Stores the messages of the use cases of one service."""

    def __init__(self, messages: Messages) -> None:
        self.sagas = messages.sagas
        self._routes = messages.routes
        self._publishes_events = bool(topology_of(messages).published_events)

    async def publish(
        self,
        executor: Executor,
        events: Sequence[object],
        *,
        subject: str | None = None,
        saga: str | None = None,
        run: str | None = None,
    ) -> None:
        """Store domain events, each as the message that OUTGOING names; nothing in a service that publishes no event.

        `subject` is the caller that caused the events, `saga` has the ids of the sagas that they belong to, and `run` is the id
        of the `republish` command that publishes them again. Raises Unlisted for an event that OUTGOING does not list.
        """
        if not self._publishes_events:
            return
        for event in events:
            await self._store(executor, event, Kind.EVENT, None, subject, saga, run)

    async def enqueue(
        self,
        executor: Executor,
        job: object,
        *,
        after: timedelta,
        subject: str | None = None,
        saga: str | None = None,
    ) -> None:
        """Store a job, to be sent no sooner than `after` from now. Raises Unlisted.

        The database adds `after` to its own time, because the relay asks the database whether the job is due.
        """
        await self._store(executor, job, Kind.JOB, after or None, subject, saga)

    async def _store(
        self,
        executor: Executor,
        said: object,
        kind: Kind,
        after: timedelta | None,
        subject: str | None,
        saga: str | None,
        run: str | None = None,
    ) -> None:
        routes = [route for route in self._routes.get(type(said), []) if route.kind == kind]
        if not routes:
            line = f"{kind.title()}({type(said).__name__}, …)"
            raise Unlisted(f"{type(said).__name__} has no line {line} in OUTGOING of messaging/: add it")
        context: dict[str, str] = {}
        trace_context.inject(context)
        for route in routes:
            identity = uuid7()
            await executor.execute(
                _STORE,
                identity,
                kind,
                route.aggregate or route.name,
                str(getattr(said, route.key) if route.key else identity),
                route.name,
                route.contract.model_validate(said).model_dump_json(),
                context.get("traceparent"),
                context.get("tracestate"),
                after,
                run,
                subject,
                saga,
            )
