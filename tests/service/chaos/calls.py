"""A neighbour in trouble: orders calls customers under load, while customers is frozen, killed, slow or worse.

    python -m tests.service.chaos.calls --seconds 20

Each trouble lasts until enough requests were refused during the trouble, so that no result depends on the speed of the machine.
Callers of orders repeat each sign-up by its key until orders answers 201. The exit status is 0 if orders has answered in time
and without a 500, if orders needed little memory and its other routes were fast meanwhile, if repetitions have added few
requests at customers, and if each sign-up has made one customer and one order at the end.
"""

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import httpx2

from tests.service.chaos.pair import CALL_SECONDS, CALLS_AT_ONCE, POOL_SIZE, REQUEST_SECONDS, Pair, pair
from tests.service.chaos.troubles import Trouble, cut, frozen, killed
from tests.support.otlp import OtlpReceiver, Span, tree
from tests.support.paths import ROOT
from tests.support.query import ask
from tests.support.quick_copier import run_quick_copier
from tests.support.waiting import PATIENCE_SECONDS, until

WORKERS = 2 * CALLS_AT_ONCE
PAUSE_SECONDS = 0.1
REFUSED = 60
"""The number of refused requests after which a trouble may end."""
CALLS = {"answering 503": 150}
"""The number of calls after which a trouble may end. In this trouble repetitions arrive, and would show a storm."""
STREAK = 20
"""How many sign-ups in a row have to succeed at once before a neighbour counts as recovered."""
GROWTH_MIB = 48
DOWN = {503, 504}
CALL = "POST customers"
"""The span of a call in orders."""


@dataclass
class Answer:
    """An answer to a sign-up, with the time at which the request began."""

    status: int
    began: float
    ended: float


@dataclass
class Load:
    """Callers of orders: sign-ups, each repeated by its key until a 201, and requests to another route."""

    base: str
    answers: list[Answer] = field(default_factory=list)
    looks: list[tuple[int, float]] = field(default_factory=list)
    """The status and the seconds of each request to another route."""
    signed_up: int = 0
    to_repeat: list[str] = field(default_factory=list)
    """Keys that still wait for their 201."""
    asking: int = 0
    """The sign-ups that wait for an answer."""
    going: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["Load"]:
        """Send requests inside of the block. Afterwards each sign-up that was started is repeated until its 201."""
        self.going.set()
        limits = httpx2.Limits(max_connections=None)
        client = httpx2.AsyncClient(base_url=self.base, timeout=6 * REQUEST_SECONDS, limits=limits)
        async with client as self.client, asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(self._sign_up_again_and_again())
            tasks.create_task(self._look())
            try:
                yield self
                for key in self.to_repeat:
                    await self.complete(key)
            finally:
                self._stop.set()

    async def sign_up(self, key: str, **headers: str) -> int:
        began = time.monotonic()
        headers = {"Idempotency-Key": key, **headers}
        self.asking += 1
        response = await self.client.post("/v1/sign-ups", json={"name": key}, headers=headers)
        self.asking -= 1
        self.answers.append(Answer(response.status_code, began, time.monotonic()))
        return response.status_code

    async def complete(self, key: str) -> None:
        """Repeat a sign-up until its 201."""
        self.signed_up += 1
        while await self.sign_up(key) != 201:
            await asyncio.sleep(PAUSE_SECONDS)
            await self.going.wait()

    async def _sign_up_again_and_again(self) -> None:
        while not self._stop.is_set():
            await self.going.wait()
            await self.complete(secrets.token_hex(8))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _look(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            response = await self.client.get("/v1/orders?limit=5")
            self.looks.append((response.status_code, time.monotonic() - began))
            await asyncio.sleep(PAUSE_SECONDS)


# --- the troubles -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def slow(url: str) -> Generator[None]:
    """Lock the table of customers, so that each insert waits."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url))
    loop.run_until_complete(connection.execute("BEGIN; LOCK TABLE customers.customers IN EXCLUSIVE MODE"))
    try:
        yield
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


@contextlib.contextmanager
def dripping(running: Pair) -> Generator[None]:
    """Let each answer of customers arrive byte by byte."""
    running.wire.dripping = True
    try:
        yield
    finally:
        running.wire.dripping = False


def troubles(running: Pair) -> dict[str, Trouble]:
    return {
        "frozen": lambda: frozen(running.customers),
        "killed": lambda: killed(running.customers),
        "refusing connections": lambda: cut(running.wire),
        "dripping": lambda: dripping(running),
        "answering 503": lambda: cut(running.database),  # customers then answers 503 with Retry-After by itself
        "slow": lambda: slow(running.databases["customers"]),
    }


TROUBLES = ("frozen", "killed", "refusing connections", "dripping", "answering 503", "slow")


# --- a run ------------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """The result of one trouble, until the neighbour was well again."""

    trouble: str
    statuses: Counter[int] = field(default_factory=Counter)
    """The answers to sign-ups that began and ended during the trouble."""
    failed: int = 0
    """Answers to sign-ups, at any time, other than 201, 503 and 504."""
    longest_seconds: float = 0
    looks_failed: int = 0
    look_before_seconds: float = 0
    look_seconds: float = 0
    """The median of the requests to another route."""
    connections: int = 0
    growth_mib: float = 0
    sessions: int = 0
    """The most sessions that orders had at its database."""
    called: int = 0
    """The requests for which orders called customers: all but the requests that found too many calls running."""
    arrived: int = 0
    """The requests that arrived at customers."""
    recovered_seconds: float = 0
    spans: list[Span] = field(default_factory=list)
    """The trace of a request that was refused."""

    @property
    def wrong(self) -> list[str]:
        """The rules that do not hold, for callers and for the team of orders."""
        rules = {
            "an answer is no 201, 503 or 504": self.failed == 0,
            "nobody was refused": sum(self.statuses[status] for status in DOWN) >= REFUSED,
            "an answer took longer than the deadline": self.longest_seconds < REQUEST_SECONDS,
            "another route failed": self.looks_failed == 0,
            "another route was slow": self.look_seconds < 5 * self.look_before_seconds + CALL_SECONDS / 2,
            "orders had too many connections": self.connections <= CALLS_AT_ONCE,
            "orders grew": self.growth_mib < GROWTH_MIB,
            "orders had too many sessions": self.sessions <= POOL_SIZE + 1,
            # The budget saves at most 10 repetitions up, and some calls begin before the trouble or end after the trouble.
            "a storm of repetitions": self.arrived <= 1.2 * self.called + 10 + WORKERS,
            "the trace does not show a failed call": any(
                span.name == CALL and span.status == "ERROR" and span.attributes["slipway.neighbour"] == "customers"
                for span in self.spans
            ),
        }
        return [name for name, holds in rules.items() if not holds]

    def __str__(self) -> str:
        return (
            f"{self.trouble}: {dict(self.statuses)} in at most {self.longest_seconds:.1f} s, other routes "
            f"{self.look_seconds * 1000:.0f} ms ({self.look_before_seconds * 1000:.0f} before), {self.connections} connections, "
            f"{self.sessions} sessions, {self.growth_mib:+.0f} MiB, {self.arrived} requests for {self.called} calls, "
            f"recovered after {self.recovered_seconds:.1f} s"
        )


async def suffer(running: Pair, load: Load, receiver: OtlpReceiver, trouble: str, seconds: float) -> Outcome:
    """Bring one trouble over customers under load, end the trouble, and wait until all is well."""
    outcome = Outcome(trouble)
    await well(load)
    memory, looked = running.memory_mib(), len(load.looks)
    outcome.look_before_seconds = median(seconds for _, seconds in load.looks[-100:])
    answered, arrived, busy = len(load.answers), running.wire.requests, not_called(running)
    makes_trouble = troubles(running)[trouble]()
    await asyncio.to_thread(makes_trouble.__enter__)
    began = time.monotonic()

    def is_enough() -> bool:
        found = load.answers[answered:]
        refused = sum(answer.began > began and answer.status in DOWN for answer in found)
        called = len(found) - (not_called(running) - busy)
        return refused >= REFUSED and called >= CALLS.get(trouble, 0) and time.monotonic() > began + seconds

    try:
        outcome.spans = await trace(load, receiver)
        while not is_enough():
            outcome.connections = max(outcome.connections, running.connections())
            outcome.sessions = max(outcome.sessions, await asyncio.to_thread(sessions, running))
            await asyncio.sleep(0.1)
            if time.monotonic() > began + PATIENCE_SECONDS + seconds:
                raise TimeoutError(f"{trouble}: not enough requests were refused\n{running.logs()}")
        outcome.growth_mib = running.memory_mib() - memory
    finally:
        ended = time.monotonic()
        await asyncio.to_thread(makes_trouble.__exit__, None, None, None)
    await well(load)
    outcome.recovered_seconds = time.monotonic() - ended
    answers = load.answers[answered:]
    outcome.statuses = Counter(each.status for each in answers if each.began > began and each.ended < ended)
    outcome.failed = sum(each.status not in {201, *DOWN} for each in answers)
    outcome.longest_seconds = max(each.ended - each.began for each in answers)
    looks = load.looks[looked:]
    outcome.looks_failed = sum(status != 200 for status, _ in looks)
    outcome.look_seconds = median(seconds for _, seconds in looks)
    outcome.called = len(answers) - (not_called(running) - busy)
    outcome.arrived = running.wire.requests - arrived
    return outcome


async def well(load: Load) -> None:
    """Wait until sign-ups succeed again, one after the other."""
    known = len(load.answers)
    since = time.monotonic()

    def streak() -> bool:
        latest = [answer.status for answer in load.answers[known:] if answer.began > since][-STREAK:]
        return len(latest) == STREAK and set(latest) == {201}

    await until(streak, lambda: Counter(answer.status for answer in load.answers[known:]))


async def trace(load: Load, receiver: OtlpReceiver) -> list[Span]:
    """Send sign-ups with a trace each until orders has refused one after a call, and return the spans of this trace.

    The other callers pause meanwhile, or too many calls would be running.
    """
    load.going.clear()
    try:
        await until(lambda: load.asking == 0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (spans := await trace_once(load, receiver)):
                pass
            return spans
    finally:
        load.going.set()


async def trace_once(load: Load, receiver: OtlpReceiver) -> list[Span]:
    names = [secrets.token_hex(16) for _ in range(CALLS_AT_ONCE)]
    sent = (load.sign_up(name, traceparent=f"00-{name}-00f067aa0ba902b7-01") for name in names)
    statuses = await asyncio.gather(*sent)
    load.to_repeat += names
    refused = {name for name, status in zip(names, statuses, strict=True) if status in DOWN}
    with contextlib.suppress(TimeoutError):
        name = (await until(partial(complete, receiver, refused), seconds=5))[0]
        return [span for span in receiver.spans if span.trace_id == name]
    return []


def complete(receiver: OtlpReceiver, traces: set[str]) -> list[str]:
    """Return each trace whose request and at least one call have arrived."""
    spans = [span for span in receiver.spans if span.trace_id in traces]
    roots = {span.trace_id for span in spans if span.name == "POST /v1/sign-ups"}
    return [span.trace_id for span in spans if span.name == CALL and span.trace_id in roots]


def not_called(running: Pair) -> int:
    """Return how many requests of orders found too many calls running."""
    return (running.folder / "orders.log").read_text().count(f"{CALLS_AT_ONCE} calls are running")


def sessions(running: Pair) -> int:
    return ask(
        running.databases["orders"], "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'orders%'"
    )


def effects(running: Pair) -> tuple[int, int, int]:
    """Return the numbers of customers, of different names of customers, and of customers with an order."""
    customers = ask(
        running.databases["customers"],
        "SELECT concat(count(*), ' ', count(DISTINCT name)) FROM customers.customers",
    )
    orders = ask(running.databases["orders"], "SELECT count(DISTINCT customer_id)::text FROM orders.orders")
    return (*map(int, customers.split()), int(orders))  # ty: ignore[invalid-explicit-return]


async def run(running: Pair, receiver: OtlpReceiver, names: Sequence[str], seconds: float) -> list[str]:
    """Bring the troubles over customers, one after the other, and return what is wrong. Prints each outcome."""
    before, wrong = await asyncio.to_thread(effects, running), []
    async with Load(running.base).running() as load:
        for name in names:
            outcome = await suffer(running, load, receiver, name, seconds)
            sys.stdout.write(f"{outcome}\n{tree(outcome.spans)}\n\n")
            wrong += [f"{name}: {each}" for each in outcome.wrong]
    counts = [after - earlier for after, earlier in zip(await asyncio.to_thread(effects, running), before, strict=True)]
    if counts != [load.signed_up] * 3:
        wrong.append(f"{load.signed_up} sign-ups made {counts} customers, customers without a namesake, and orders")
    return wrong


def generated(folder: Path) -> Callable[..., Path]:
    """Return a `render` for services in this folder."""

    def render(*, service_name: str, **answers: Any) -> Path:
        data = {name: str(answer) for name, answer in answers.items()}
        run_quick_copier("copy", ROOT, folder / service_name, service_name=service_name, **data)
        return folder / service_name

    return render


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.service.chaos.calls", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15, help="how long each trouble lasts at least")
    parser.add_argument("troubles", nargs="*", choices=[*TROUBLES, []], help="all by default")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        receiver = stack.enter_context(OtlpReceiver())
        running = stack.enter_context(pair(generated(folder), receiver))
        wrong = asyncio.run(run(running, receiver, options.troubles or TROUBLES, options.seconds))
        if wrong:
            sys.stderr.write(running.logs())
    sys.stdout.write("\n".join(wrong or ["well"]) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
