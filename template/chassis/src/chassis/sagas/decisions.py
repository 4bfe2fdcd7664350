"""Decisions of a person about a saga: try its next step again, abandon it, or record a compensation as done by hand."""

import json
from typing import Any
from uuid import UUID

from chassis.database import Executor, UnitOfWork
from chassis.sagas import rows
from chassis.sagas.advance import ENDED, outcome, pending_undos, run_of
from chassis.sagas.declared import AdvanceSagaV1
from chassis.sagas.registry import Sagas


class Refused(Exception):
    """The saga does not exist, or the decision does not fit its state."""


async def find(executor: Executor, saga_id: UUID, query: str = rows.READ) -> Any:
    """Return the row of one saga. Raises Refused."""
    row = await executor.fetchrow(query, saga_id)
    if row is None:
        raise Refused(f"no saga has the id {saga_id}: `sagas list` shows the ids")
    return row


async def retry(uow: UnitOfWork, sagas: Sagas, saga_id: UUID, *, by_hand: bool = False) -> str:
    """Let a parked saga try its step again. With `by_hand`, record its next compensation as performed by a person instead.

    Return what happens next. Raises Refused.
    """
    row = await find(uow.connection, saga_id, rows.LOCK)
    if row["problem"] is None:
        raise Refused(f"{saga_id} is not parked, so nothing waits for a retry")
    steps, next_step = row["steps"], "its next step"
    if by_hand:
        if row["state"] != "undoing":
            raise Refused(
                f"{saga_id} is {row['state']}: only a compensation can be done by hand, because a step has a result"
            )
        run = run_of(row)
        await outcome(sagas.of(row), run, row)
        pending = pending_undos(run)
        if not pending:
            raise Refused(
                f"{saga_id} has no compensation left that a person could perform: `sagas retry` without --by-hand"
            )
        undo = pending[-1]
        undo.entry["undone"], undo.entry["by_hand"] = run.now.isoformat(), True
        steps, next_step = json.dumps(run.steps), f"what comes after {undo.name}"
    await _resume(uow, sagas, row, row["state"], row["reason"], steps)
    return f"tries {next_step}"


async def abandon(uow: UnitOfWork, sagas: Sagas, saga_id: UUID, *, reason: str) -> str:
    """Undo the steps of a saga that has not ended. Return what happens next. Raises Refused."""
    row = await find(uow.connection, saga_id, rows.LOCK)
    if row["state"] in {*ENDED, "undoing"}:
        raise Refused(f"{saga_id} is {row['state']} already")
    await _resume(uow, sagas, row, "undoing", reason, row["steps"])
    return "undoes its steps"


async def _resume(uow: UnitOfWork, sagas: Sagas, row: Any, state: str, reason: str | None, steps: str) -> None:
    if row["problem_message"] is not None:
        await uow.connection.execute(rows.UNPARK, row["problem_message"])
    turn = await uow.connection.fetchval(rows.RESUME, row["id"], state, reason, steps, sagas.idle)
    uow.subject = row["subject"]
    job = AdvanceSagaV1(saga_id=row["id"], turn=turn)
    await uow.enqueue(job)
    # The delayed job in the outbox belongs to an earlier turn, so the saga would ignore the job at the deadline.
    if state == "waiting" and row["deadline"] > row["now"]:
        await uow.enqueue(job, after=row["deadline"] - row["now"])
