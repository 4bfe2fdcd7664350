"""Run: replays the function of a saga over the recorded results of its steps, and performs the next step."""

import inspect
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from types import UnionType
from typing import Any, NoReturn, TypeVar, get_args, overload
from uuid import UUID

from opentelemetry import metrics, trace
from opentelemetry.trace import Link

from chassis.database import UnitOfWork
from chassis.database.unit_of_work import current_key
from chassis.errors import DomainError
from chassis.sagas.recorded_values import (
    MAX_BYTES,
    Diverged,
    Entry,
    TooLarge,
    UseCase,
    adapter_of,
    as_json,
    error_of,
    load,
    result_adapter,
)
from chassis.telemetry.durations import duration_histogram

MAX_STEPS = 50
"""The most steps and waits of one saga, because each commit writes the results of all of them again."""

T = TypeVar("T")
tracer = trace.get_tracer("chassis.sagas")
durations = duration_histogram(
    metrics.get_meter("chassis.sagas"), "saga.step.duration", "Duration of a step or a compensation."
)


class Abandon(Exception):
    """Raise it in a saga to undo its steps, the latest first. The text is the reason that people read."""


class TimedOut:
    """The answer of `reply` if no answer came within its time."""


class Halt(BaseException):
    """End the replay, because this message has done its work. Not an Exception, so that no `except` of a saga catches it."""


@dataclass(eq=False)
class Undo:
    entry: Entry
    use_case: UseCase
    args: tuple[Any, ...]

    @property
    def name(self) -> str:
        return f"undo {self.entry['name']}"


@dataclass(eq=False)
class Run:
    """One run of a saga's function. Await its methods one after the other: their order is what a replay relies on."""

    id: UUID
    name: str
    key: str
    version: int
    """The version of the saga's function at its start. Newer code checks the version, as in `if run.version >= 2`."""
    started_at: datetime
    now: datetime
    """The database's time for this message. Each replay has another time, so let no branch depend on it."""
    steps: list[Entry]
    answers: list[Entry]
    position: str = ""
    deadline: datetime | None = None
    uow: UnitOfWork | None = None
    """None in a replay that performs nothing."""
    undoing: bool = False
    undos: list[Undo] = field(default_factory=list)
    worked: bool = False
    """Whether this message has performed its one step. A further step waits for the next message."""
    waiting: bool = False
    cause: Link | None = None
    """A link to the span of the message, because the spans of the steps are in the trace of the start."""
    _played: int = 0
    _failure: BaseException | None = None
    _busy: bool = False

    async def step(
        self,
        use_case: Callable[..., Awaitable[T]],
        *args: Any,
        undo: UseCase | None = None,
        name: str = "",
    ) -> T:
        """Call the use case once, and commit its effects together with its recorded result.

        The use case gets the arguments, the unit of work and, if it takes `now`, the time. `undo` is called with the same
        arguments if the saga is abandoned. A DomainError undoes the effects of the step, and is recorded as its result. Each
        other error ends the attempt, and nothing has happened. Raises Diverged and TooLarge, and ValueError for a result that
        its JSON does not restore.
        """
        name = name or getattr(use_case, "__name__", "")
        with self._one_at_a_time():
            entry = self._recorded(name)
            if entry is None:
                entry = await self._perform(name, use_case, args)
            if "error" in entry:
                raise error_of(entry)
            if undo is not None:
                self.undos.append(Undo(entry, undo, args))
            return load(result_adapter(use_case), entry["result"])

    @overload
    async def reply(self, answers: type[T], *, within: timedelta, name: str = "") -> T | TimedOut: ...
    @overload
    async def reply(self, answers: UnionType, *, within: timedelta, name: str = "") -> Any: ...
    async def reply(self, answers: Any, *, within: timedelta, name: str = "") -> Any:
        """Wait for the first answer of one of these classes, and return the answer, or TimedOut after the time.

        The first of answer and time-out is recorded, and later answers change nothing.
        """
        classes = {each.__name__: each for each in get_args(answers) or (answers,)}
        with self._one_at_a_time():
            entry = self._wait(name or " | ".join(classes), classes, within)
            if entry["answer"] == TimedOut.__name__:
                return TimedOut()
            return load(adapter_of(classes[entry["answer"]]), entry["result"])

    async def sleep(self, duration: timedelta, *, name: str) -> None:
        """Wait until this time has passed since the saga reached this line. Meanwhile it costs nothing but its row."""
        with self._one_at_a_time():
            self._wait(name, {}, duration)

    async def undo(self, undo: Undo) -> None:
        """Perform one compensation, and record it."""
        await self._call(undo.name, undo.use_case, undo.args)
        undo.entry["undone"], self.position = self.now.isoformat(), undo.name

    def finish(self) -> None:
        """Check that the function, at its end, swallowed no error and omitted no recorded step. Raises Halt and Diverged."""
        if self._failure is not None:
            raise self._failure
        if self._played < len(self.steps):
            self._diverge("ends")

    def _wait(self, name: str, classes: dict[str, type], within: timedelta) -> Entry:
        entry = self._recorded(name, may_follow=True)
        if entry is not None:
            return entry
        for answer in self.answers:
            if answer["type"] in classes:
                self.answers.remove(answer)
                return self._record(name, answer=answer["type"], result=answer["body"])
        if self.deadline is None or self.position != name:
            self.deadline, self.position = self.now + within, name
        if self.now < self.deadline:
            self.waiting = True
            raise Halt
        # The decision has a commit of its own, so that a failure of the next step cannot revoke it.
        self.worked = True
        return self._record(name, answer=TimedOut.__name__, result=None)

    def _recorded(self, name: str, *, may_follow: bool = False) -> Entry | None:
        """Return the record of the step that comes next in the replay; None if this step is new. Raises Halt and Diverged."""
        if self._failure is not None:
            raise self._failure
        if self._played < len(self.steps):
            entry = self.steps[self._played]
            if entry["name"] != name:
                self._diverge(f"asks for {name!r}")
            self._played += 1
            return entry
        if not name or any(entry["name"] == name for entry in self.steps):
            raise ValueError(f"two steps of the saga {self.name} are named {name!r}: give the second one a name=…")
        if self.undoing or self.uow is None or (self.worked and not may_follow):
            raise Halt
        if len(self.steps) >= MAX_STEPS:
            raise TooLarge(f"the saga {self.name} has more than {MAX_STEPS} steps: let a step start another saga")
        return None

    def _diverge(self, does: str) -> NoReturn:
        at = self._played
        raise Diverged(
            f"the saga {self.name} {self.key!r} of version {self.version} {does}, where {self.steps[at]['name']!r} is recorded as "
            f"step {at + 1}: keep the recorded order for this version, and put new steps under `if run.version >= …`"
        )

    async def _perform(self, name: str, use_case: UseCase, args: tuple[Any, ...]) -> Entry:
        assert self.uow is not None, "_recorded has checked it"
        savepoint = self.uow.connection.transaction()
        await savepoint.start()
        try:
            result = await self._call(name, use_case, args)
            entry = self._record(name, result=as_json(result_adapter(use_case), result, f"the result of {name}"))
        except DomainError as error:
            await savepoint.rollback()
            kind = f"{type(error).__module__}:{type(error).__qualname__}"
            self.worked = True
            return self._record(name, error=kind, result=str(error)[:MAX_BYTES])
        await savepoint.commit()
        self.worked = True
        return entry

    async def _call(self, name: str, use_case: UseCase, args: tuple[Any, ...]) -> Any:
        assert self.uow is not None, "only a run with a unit of work performs steps"
        now = {"now": self.now} if "now" in inspect.signature(use_case).parameters else {}
        attributes = {"chassis.saga.name": self.name, "chassis.saga.id": str(self.id), "chassis.saga.step": name}
        key = current_key.set((f"saga {self.id} {name}", count(1)))
        began, links = time.perf_counter(), [self.cause] if self.cause else []
        try:
            with tracer.start_as_current_span(f"saga {self.name} {name}", attributes=attributes, links=links):
                return await use_case(*args, self.uow, **now)
        finally:
            current_key.reset(key)
            # The name of a step may hold an id, and a use case has one name.
            step = getattr(use_case, "__name__", "other")
            durations.record(time.perf_counter() - began, {"saga": self.name, "step": step})

    def _record(self, name: str, **values: Any) -> Entry:
        entry = {"name": name, "at": self.now.isoformat(), **values}
        self.steps.append(entry)
        self._played += 1
        self.position, self.deadline = name, None
        return entry

    @contextmanager
    def _one_at_a_time(self) -> Generator[None]:
        if self._busy:
            self._failure = RuntimeError(
                f"the saga {self.name} runs two steps at a time: await each step before the next one"
            )
            raise self._failure
        self._busy = True
        try:
            yield
        except DomainError:
            raise
        except BaseException as error:
            self._failure = error  # a saga that catches the error ends all the same
            raise
        finally:
            self._busy = False
