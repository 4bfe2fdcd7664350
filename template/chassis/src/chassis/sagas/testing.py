"""Test sagas without a broker and without waiting. In tests/sagas/conftest.py: `from chassis.sagas.testing import sagas`."""

import asyncio
import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chassis.brokers import Kind, Message
from chassis.database import Database
from chassis.messages import Messages
from chassis.sagas import decisions
from chassis.sagas.advance import outcome, run_of
from chassis.sagas.declared import Saga
from chassis.sagas.recorded_values import Diverged
from chassis.sagas.registry import Sagas, reply
from chassis.service import Service

_DUE = """
    SELECT seq, payload, saga FROM chassis.outbox
    WHERE type = $1 AND (not_before IS NULL OR not_before <= clock_timestamp()) ORDER BY coalesce(not_before, created_at), seq LIMIT 1
"""
_SENT = "DELETE FROM chassis.outbox WHERE seq = $1"
_EARLIER = """
    WITH jobs AS (UPDATE chassis.outbox SET not_before = not_before - $1::interval)
    UPDATE chassis.sagas SET deadline = deadline - $1::interval, due_at = due_at - $1::interval WHERE ended_at IS NULL
"""


@dataclass(frozen=True)
class SagaState:
    """A saga as the database has it. `steps` are the names of its steps and waits, and `undone` of the steps that were undone."""

    id: uuid.UUID
    state: str
    steps: list[str]
    undone: list[str]
    reason: str | None
    problem: str | None
    """Why the saga is parked."""


class SagaPlayer:
    """Plays the jobs of sagas, and the answers that they wait for."""

    def __init__(self, database: Database, messages: Messages, mailbox: Any) -> None:
        """`mailbox` is the chassis.testing.Mailbox of the service."""
        assert messages.sagas is not None, "messaging/sagas.py has no line SAGAS = sagas_in(sagas)"
        self._database, self._mailbox, self._sagas = database, mailbox, messages.sagas
        [self._line] = messages.sagas.incoming
        [self._job] = [
            name for name, receiver in messages.receivers.items() if receiver.contract is self._line.contract
        ]

    async def play(self) -> None:
        """Run all steps that are due. Raises what a step raises: in production, attempts and parking follow."""
        while await self._play_one():
            pass

    async def reply(self, answer: object, *, saga: Saga, key: str) -> None:
        """Give the answer, as the handler of its event does, and run what follows."""
        async with self._database.unit_of_work() as uow:
            await reply(uow, answer, saga=saga, key=key)
        await self.play()

    async def pass_time(self, duration: timedelta) -> None:
        """Bring the deadlines of sagas and the delayed jobs nearer by this duration, and run the work that is due then."""
        await self._database.execute(_EARLIER, duration)
        await self.play()

    async def park(self, problem: str) -> None:
        """Park the saga whose step fails, as a worker does after the last attempt."""
        row = await self._database.fetchrow(_DUE, self._job)
        assert row is not None, "no saga has a step that is due"
        assert self._line.on_parked is not None, "the job of sagas has on_parked"
        message = Message(Kind.JOB, self._job, str(uuid.uuid4()), "key", row["payload"].encode(), {})
        async with self._database.unit_of_work() as uow:
            await self._line.on_parked(message, uow, problem)
        await self._database.execute(_SENT, row["seq"])

    async def retry(self, saga: Saga, key: str, *, by_hand: bool = False) -> None:
        """Retry a saga as the command `sagas retry` does, and play the messages that follow.

        `by_hand` is the option of that command. Raises chassis.sagas.decisions.Refused.
        """
        saga_id = (await self.state(saga, key)).id
        async with self._database.unit_of_work() as uow:
            await decisions.retry(uow, self._sagas, saga_id, by_hand=by_hand)
        await self.play()

    async def state(self, saga: Saga, key: str) -> SagaState:
        """Return the state of one saga."""
        [row] = await self._database.fetch("SELECT * FROM chassis.sagas WHERE name = $1 AND key = $2", saga.name, key)
        steps = json.loads(row["steps"])
        undone = sorted((step["undone"], -at, step["name"]) for at, step in enumerate(steps) if "undone" in step)
        names = [step["name"] for step in steps]
        return SagaState(row["id"], row["state"], names, [name for *_, name in undone], row["reason"], row["problem"])

    async def _play_one(self) -> bool:
        row = await self._database.fetchrow(_DUE, self._job)
        if row is None:
            return False
        await self._mailbox.receive(self._job, json.loads(row["payload"]), saga=row["saga"])
        await self._database.execute(_SENT, row["seq"])
        return True


@pytest.fixture
async def sagas(database: Database, service: Service, mailbox: Any) -> SagaPlayer:
    """Play the sagas of the service under test."""
    return SagaPlayer(database, service.messages, mailbox)


def check_run(sagas: Sagas, path: Path) -> None:
    """Replay a run that `sagas export` has written, and perform nothing. Raises Diverged where the code now goes another way."""
    recorded = json.loads(path.read_text())
    started_at = datetime.fromisoformat(recorded["started_at"])
    steps, params = json.dumps(recorded["steps"]), json.dumps(recorded["params"])
    fixed = {
        "id": uuid.UUID(recorded["id"]),
        "started_at": started_at,
        "now": started_at,
        "deadline": None,
        "position": "",
    }
    row: dict[str, Any] = {**recorded, **fixed, "steps": steps, "params": params, "answers": "[]"}
    went, _ = asyncio.run(outcome(sagas.of(row), run_of(row), row))
    # If a person abandoned the saga, the function itself would go on after the last recorded step.
    expected = {"completed": {"completed"}, "abandoned": {"undoing", "running"}, "undoing": {"undoing"}}
    if went not in expected.get(recorded["state"], {"running"}):
        raise Diverged(
            f"{path}: the saga is {recorded['state']} after its recorded steps, and with the code here it would be {went}"
        )


def runs_in(folder: Path) -> list[Path]:
    """Return the files of recorded runs."""
    return sorted(folder.glob("*.json"))
