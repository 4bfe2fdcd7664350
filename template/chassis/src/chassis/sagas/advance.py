"""The handler that advances a saga: it locks the row, replays the function, performs one step, and stores its result."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import structlog
from opentelemetry import context, metrics, trace
from opentelemetry.trace import Link
from pydantic import ValidationError

from chassis.brokers import Message
from chassis.database import UnitOfWork
from chassis.database.unit_of_work import Unlisted
from chassis.sagas import rows
from chassis.sagas.declared import AdvanceSagaV1, Saga
from chassis.sagas.recorded_values import TooLarge, adapter_of
from chassis.sagas.run import MAX_STEPS, Abandon, Halt, Run, Undo
from chassis.telemetry import trace_context

log = structlog.get_logger()
ended_sagas = metrics.get_meter("chassis.sagas").create_counter(
    "saga.ended", unit="{saga}", description="Sagas that have ended, by their outcome."
)

ENDED = {"completed", "abandoned"}
PATIENT_SWEEPS = 3
"""How many sweeps a saga waits for a worker that knows its function: during a deployment the old workers do not."""
LONGEST_REASON = 2000
LONGEST_CHAIN = 4
"""The most sagas that a header names, the innermost first."""


class Advance:
    """Advances the sagas of one service."""

    def __init__(self, find: Callable[[Mapping[str, Any]], Saga], *, idle: timedelta) -> None:
        """`find` returns the saga of a row, or raises Unlisted."""
        self._find, self._idle = find, idle

    async def on_job(self, job: AdvanceSagaV1, uow: UnitOfWork) -> None:
        """Keep the answer that the job carries, or run the next step of its saga."""
        row = await uow.connection.fetchrow(rows.LOCK, job.saga_id)
        if row is None:
            log.warning("saga_unknown", saga_id=str(job.saga_id))
        elif job.answer is not None:
            await self._keep(row, job, uow)
        elif _is_due(row, job, uow) and (saga := self._known(row)):
            await self._play(saga, row, uow)

    async def on_parked(self, message: Message, uow: UnitOfWork, reason: str) -> None:
        """Stop the saga until a person decides, in the commit that parks its job."""
        try:
            job = AdvanceSagaV1.model_validate_json(message.body)
        except ValidationError:
            return
        if job.answer is None:
            await uow.connection.execute(rows.PARK, job.saga_id, job.turn, _text(reason), message.id)

    async def _keep(self, row: Any, job: AdvanceSagaV1, uow: UnitOfWork) -> None:
        """Store the answer before anything reads it, so that no failing step can lose it."""
        answers, late = json.loads(row["answers"]), row["state"] in {*ENDED, "undoing"}
        if late:
            log.warning("answer_late", saga=row["name"], saga_id=str(row["id"]), answer=job.answer)
        if len(answers) >= MAX_STEPS:
            if late:
                return
            raise TooLarge(f"the saga {row['name']} {row['key']!r} has {MAX_STEPS} answers that no step has read")
        answers.append({"type": job.answer, "body": job.body, "at": row["now"].isoformat()})
        await uow.connection.execute(rows.ANSWER, row["id"], json.dumps(answers), self._idle)
        if not late:
            await uow.enqueue(AdvanceSagaV1(saga_id=row["id"], turn=row["turn"]))

    def _known(self, row: Any) -> Saga | None:
        """Return the saga's function; None while another version of the worker may have it. Raises Unlisted."""
        try:
            return self._find(row)
        except Unlisted:
            # The sweep skips a parked saga, so no other worker would get the job that a person replays here.
            if row["sweeps"] >= PATIENT_SWEEPS or row["problem"] is not None:
                raise
            log.warning("saga_version_unknown", saga=row["name"], saga_id=str(row["id"]), version=row["version"])
            return None

    async def _play(self, saga: Saga, row: Any, uow: UnitOfWork) -> None:
        cause = trace.get_current_span().get_span_context()
        run = run_of(row, uow=uow, cause=Link(cause) if cause.is_valid else None)
        uow.subject = row["subject"]
        uow.saga = ",".join([str(run.id), *(row["parent"] or "").split(",")][:LONGEST_CHAIN]).rstrip(",")
        start = trace_context.extract({name: row[name] or "" for name in ("traceparent", "tracestate")})
        # All steps are in the trace of the start, also after days, and after a sweep or a person's decision.
        token = context.attach(
            start if trace.get_current_span(start).get_span_context().is_valid else context.get_current()
        )
        try:
            known = len(run.steps)
            state, reason = await outcome(saga, run, row)
            if state == "undoing":
                state = await self._undo(run, decided=row["state"] == "undoing")
            if state == "waiting" and len(run.steps) == known and run.deadline == row["deadline"]:
                await uow.connection.execute(rows.WAIT, run.id, self._idle)
                return
            await self._store(run, row, uow, state, reason)
        finally:
            context.detach(token)

    async def _undo(self, run: Run, *, decided: bool) -> str:
        """Perform the next compensation, the latest step first, if the decision to abandon is committed. Return the state."""
        pending = pending_undos(run)
        if pending and decided:
            await run.undo(pending.pop())
        return "undoing" if pending else "abandoned"

    async def _store(self, run: Run, row: Any, uow: UnitOfWork, state: str, reason: str | None) -> None:
        found = (
            state,
            run.position,
            json.dumps(run.steps),
            json.dumps(run.answers),
            reason and _text(reason),
            run.deadline,
        )
        await uow.connection.execute(rows.ADVANCE, run.id, *found, state in ENDED, self._idle)
        if state in ENDED:
            log.info("saga_ended", saga=run.name, saga_id=str(run.id), key=run.key, outcome=state, reason=reason)
            ended_sagas.add(1, {"saga": run.name, "outcome": state})
            return
        pause = timedelta(0) if run.deadline is None else max(timedelta(0), run.deadline - run.now)
        await uow.enqueue(AdvanceSagaV1(saga_id=run.id, turn=row["turn"] + 1), after=pause)


def run_of(row: Mapping[str, Any], *, uow: UnitOfWork | None = None, cause: Link | None = None) -> Run:
    """Make the run of a row."""
    return Run(
        id=row["id"],
        name=row["name"],
        key=row["key"],
        version=row["version"],
        started_at=row["started_at"],
        now=row["now"],
        steps=json.loads(row["steps"]),
        answers=json.loads(row["answers"]),
        position=row["position"],
        deadline=row["deadline"],
        uow=uow,
        undoing=row["state"] == "undoing",
        cause=cause,
    )


async def outcome(saga: Saga, run: Run, row: Mapping[str, Any]) -> tuple[str, str | None]:
    """Run the function as far as it goes, and return the state of the saga and why it is abandoned. Raises Diverged."""
    state, reason = "completed", row["reason"]
    try:
        try:
            await saga.function(run, adapter_of(saga.params).validate_json(row["params"]))
        except Abandon as error:
            state, reason = "undoing", str(error)
        run.finish()
    except Halt:
        state, reason = "waiting" if run.waiting else "running", row["reason"]
    return ("undoing" if run.undoing else state), reason


def pending_undos(run: Run) -> list[Undo]:
    """Return the compensations that are not done, in the order of their steps."""
    return [undo for undo in run.undos if "undone" not in undo.entry]


def _is_due(row: Any, job: AdvanceSagaV1, uow: UnitOfWork) -> bool:
    """Return whether the job is for the next step; a parked saga takes only the parked job, which a person replays."""
    return job.turn == row["turn"] and row["state"] not in ENDED and row["problem_message"] in {None, uow.message_id}


def _text(text: str) -> str:
    return text.replace("\0", "\ufffd")[:LONGEST_REASON]
