"""The sagas of a service: how they are found, started and answered."""

import json
from collections.abc import Mapping
from datetime import timedelta
from types import ModuleType
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from chassis.database import UnitOfWork
from chassis.database.unit_of_work import Unlisted
from chassis.discovery import modules_in
from chassis.messages import Job, OnJob
from chassis.sagas import rows
from chassis.sagas.advance import Advance
from chassis.sagas.declared import LONGEST, AdvanceSagaV1, Saga
from chassis.sagas.recorded_values import adapter_of, as_json
from chassis.telemetry import trace_context

log = structlog.get_logger()


class Sagas:
    """All sagas of a service. `outgoing` and `incoming` are the lines of the job that advances them."""

    def __init__(self, sagas: list[Saga], *, idle: timedelta, keep: timedelta) -> None:
        self.idle, self.keep = idle, keep
        self._sagas: dict[str, Saga] = {}
        for each in sagas:
            if self._sagas.setdefault(each.name, each) is not each:
                raise ValueError(f"two sagas are named {each.name}: give one of them another name")
        advance = Advance(self.of, idle=idle)
        self.outgoing = [Job(AdvanceSagaV1, AdvanceSagaV1)]
        self.incoming = [OnJob(AdvanceSagaV1, advance.on_job, on_parked=advance.on_parked)]

    @property
    def versions(self) -> dict[str, int]:
        """The version of each saga, by its name."""
        return {name: each.version for name, each in sorted(self._sagas.items())}

    def find(self, name: str) -> Saga:
        """Return the saga of this name. Raises Unlisted."""
        if name not in self._sagas:
            known = ", ".join(sorted(self._sagas)) or "none"
            raise Unlisted(f"this service has no saga {name!r} ({known}): declare it in sagas/ by @saga({name!r})")
        return self._sagas[name]

    def of(self, row: Mapping[str, Any]) -> Saga:
        """Return the saga that the row is a run of. Raises Unlisted if only another version of the service has it."""
        saga = self._sagas.get(row["name"])
        if saga is None or saga.version < row["version"]:
            raise Unlisted(
                f"the saga {row['name']} of version {row['version']} has no function here: deploy the function before what starts it"
            )
        return saga

    async def start(self, uow: UnitOfWork, saga: Saga | str, params: object, *, key: str) -> UUID:
        """Store the saga and its first job in this transaction, unless the key has a saga already. Return the saga's id."""
        found = self.find(saga if isinstance(saga, str) else saga.name)
        if not 0 < len(key) <= LONGEST or not key.isprintable():
            raise ValueError(f"{key[:50]!r} cannot be the key of a saga: write 1 to {LONGEST} printable characters")
        value = as_json(adapter_of(found.params), params, f"the second argument of start for {found.name}")
        carrier: dict[str, str] = {}
        trace_context.inject(carrier)
        trace = (carrier.get("traceparent"), carrier.get("tracestate"))
        stored = (uuid7(), found.name, key, found.version, json.dumps(value), self.idle, uow.subject, uow.saga, *trace)
        saga_id = await uow.connection.fetchval(rows.START, *stored)
        if saga_id is None:
            return await uow.connection.fetchval(rows.ID, found.name, key)
        await uow.enqueue(AdvanceSagaV1(saga_id=saga_id))
        return saga_id


def sagas_in(
    package: ModuleType, *, idle: timedelta = timedelta(minutes=1), keep: timedelta = timedelta(days=30)
) -> Sagas:
    """Find every saga in the modules below the package, so that a new file is used.

    The sweep enqueues a job for a saga that has not moved for `idle`. A saga that has ended is deleted after `keep`, and its
    key may then start another one.
    """
    found = {
        id(each): each for module in modules_in(package) for each in vars(module).values() if isinstance(each, Saga)
    }
    return Sagas(list(found.values()), idle=idle, keep=keep)


async def reply(uow: UnitOfWork, answer: object, *, saga: Saga | None = None, key: str = "") -> None:
    """Give the answer to the saga that the handled message belongs to, or, if the message names no saga, to the saga of this key.

    Call this function in a handler. It only enqueues the job that carries the answer, so that a batch of events waits for no
    lock of a saga. If the message belongs to no saga of this service, the function does nothing. Raises TooLarge.
    """
    name = type(answer).__name__
    body = as_json(adapter_of(type(answer)), answer, f"the answer {name}")
    named = saga.name if saga else None
    found = await uow.connection.fetch(rows.ANSWERED, uow.saga.split(",") if uow.saga else [], named, key)
    for row in found:
        await uow.enqueue(AdvanceSagaV1(saga_id=row["id"], answer=name, body=body))
    if not found:
        log.info("answer_without_saga", answer=name, saga=named)
