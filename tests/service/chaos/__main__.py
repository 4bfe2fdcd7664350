"""Break parts of two talking services and of a clerk under load, in random order, and then count.

    python -m tests.service.chaos nats --rounds 40 --seed 7

In each round a part is killed or frozen, a network link is cut or swallows everything for a while, a server's disk is
full, or a process' clock jumps by ten minutes. The run then counts lost events, effects that happened twice, steps out
of order and answers with status 500, and which due times, long jobs and states of the clerk were lost or had their
effect twice. The exit status is 0 if all of these counts are 0. The run is bounded: the rounds, then a drain with a
deadline.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import uuid4

import httpx2

from tests.service.chaos.errands import LONG_SECONDS, Records, count_records, first_minute, hand_in
from tests.service.chaos.system import System, connect, system
from tests.service.chaos.troubles import kinds, schedule
from tests.support import brokers

DRAIN_TIMEOUT_SECONDS = 240
COUNTERS = 20
REQUESTS_PER_SECOND = 60


@dataclass
class Count:
    """The result of a run. Only `committed` and `acknowledged` may be other than 0."""

    acknowledged: int = 0
    committed: int = 0
    forgotten: int = 0
    """Steps that were answered with 201 and are not in the database."""
    lost: int = 0
    """Committed steps without an effect."""
    twice: int = 0
    """Effects of a step after its first effect."""
    disordered: int = 0
    """Steps whose effect came after that of a later step of the same counter."""
    parked: int = 0
    failed: int = 0
    """Answers with status 500, which no trouble may cause."""
    happened: Counter[str] = field(default_factory=Counter)
    """The number of each kind of trouble."""
    records: Records | None = None
    """The result of the clerk's work, if there is a clerk."""

    @property
    def good(self) -> bool:
        wrong = self.forgotten + self.lost + self.twice + self.disordered + self.parked + self.failed
        return self.committed > 0 and wrong == 0 and (self.records is None or self.records.good)


@dataclass
class Answers:
    """The answers that callers of the service received."""

    taken: Counter[str] = field(default_factory=Counter)
    """Steps that were answered with 201, by counter."""
    failed: int = 0
    """Answers with status 500."""


async def load(base: str, stop: asyncio.Event, answers: Answers, *, per_second: float = REQUESTS_PER_SECOND) -> None:
    """Take steps at a steady rate, on counters of its own, and record the answers."""
    mine = uuid4().hex[:8]
    limits = httpx2.Limits(max_connections=20)
    async with httpx2.AsyncClient(base_url=base, timeout=10, limits=limits) as client, asyncio.TaskGroup() as tasks:

        async def step(name: str) -> None:
            with contextlib.suppress(httpx2.HTTPError):
                status = (await client.post(f"/v1/counters/{name}/steps")).status_code
                answers.taken[name] += status == 201
                answers.failed += status == 500

        number = 0
        while not stop.is_set():
            tasks.create_task(step(f"{mine}-{number % COUNTERS}"))
            number += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1 / per_second)


async def torment(running: System, planned: Sequence[tuple[str, str]], dice: random.Random) -> None:
    """Run the planned troubles one after the other, with a short pause before each."""
    known = kinds(running)
    for name, victim in planned:
        await asyncio.sleep(dice.uniform(0.3, 1.5))
        kind = known[name]
        lasts = dice.uniform(*kind.seconds)
        print(f"  {name} {victim} for {lasts:.1f} s", flush=True)
        trouble = kind.victims[victim]()
        await asyncio.to_thread(trouble.__enter__)
        await asyncio.sleep(lasts)
        await asyncio.to_thread(trouble.__exit__, None, None, None)


async def count(running: System, answers: Answers) -> Count:
    """Wait until each committed step has had its effect, or the deadline has passed; then compare."""
    counter = await connect(running.databases["counter"])
    journal = await connect(running.databases["journal"])
    deadline = time.monotonic() + DRAIN_TIMEOUT_SECONDS
    while True:
        waiting = await counter.fetchval("SELECT count(*) FROM chassis.outbox")
        steps = {row["name"]: row["steps"] for row in await counter.fetch("SELECT name, steps FROM counter.counters")}
        written = await journal.fetchval("SELECT count(DISTINCT (name, step)) FROM journal.entries")
        if (waiting == 0 and written >= sum(steps.values())) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.3)
    await asyncio.sleep(1)  # wait for second effects, which would come later
    result = Count(answers.taken.total(), sum(steps.values()), failed=answers.failed)
    for name, taken in steps.items():
        rows = await journal.fetch("SELECT step FROM journal.entries WHERE name = $1 ORDER BY seq", name)
        seen = [row["step"] for row in rows]
        result.forgotten += max(0, answers.taken[name] - taken)
        result.lost += len(set(range(1, taken + 1)) - set(seen))
        result.twice += len(seen) - len(set(seen))
        result.disordered += sum(later < earlier for earlier, later in pairwise(seen))
    for connection in (counter, journal):
        result.parked += await connection.fetchval("SELECT count(*) FROM chassis.parked")
        await connection.close()
    return result


async def run(
    running: System,
    *,
    rounds: int,
    seed: int,
    errand_seconds: float = LONG_SECONDS,
    per_second: float = REQUESTS_PER_SECOND,
) -> Count:
    """Put a running system under load, break its parts, then count."""
    dice = random.Random(seed)
    planned = schedule(running, rounds, dice)
    answers = Answers()
    stop = asyncio.Event()
    loading = [asyncio.create_task(load(running.base, stop, answers, per_second=per_second))]
    if clerk := running.databases.get("clerk"):
        connection = await connect(clerk)
        first = await first_minute(connection)
        await connection.close()
        loading.append(asyncio.create_task(hand_in(clerk, stop, errand_seconds)))
    await torment(running, planned, dice)
    await asyncio.sleep(2)
    stop.set()
    await asyncio.gather(*loading)
    result = await count(running, answers)
    result.happened = Counter(kind for kind, _ in planned)
    if "clerk" in running.databases:
        connection = await connect(running.databases["clerk"])
        result.records = await count_records(connection, first, timeout_seconds=DRAIN_TIMEOUT_SECONDS)
        result.parked += await connection.fetchval("SELECT count(*) FROM chassis.parked")
        await connection.close()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.service.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("broker", choices=brokers.BROKERS)
    parser.add_argument("--rounds", type=int, default=40, help="how many troubles, one after the other")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats the order of the troubles")
    options = parser.parse_args()
    print(f"{options.broker}: {options.rounds} rounds, --seed {options.seed}", flush=True)
    with system(options.broker, tormented=True) as running:
        if left_out := {"full-disk", "clock"} - set(kinds(running)):
            print(
                f"  not on this machine, which needs root and Debian's packages for it: {', '.join(sorted(left_out))}"
            )
        asyncio.run(running.wait_until_up())
        result = asyncio.run(run(running, rounds=options.rounds, seed=options.seed))
        print(result)
        if not result.good:
            print(running.logs(), file=sys.stderr)
    return 0 if result.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
