"""Orders that are placed by sagas, while workers, servers and networks are killed, frozen, cut off and replaced.

    python -m tests.service.chaos.sagas nats --sagas 300 --rounds 30 --seed 7

Two workers of shop run the sagas, and a worker of the bank charges cards, refuses some, and answers some late or never.
Workers also die between a commit and its acknowledgement, jobs are lost or come several times, and in the middle shop is
replaced by a version with one more step. At the end each charged card belongs to a confirmed order or has a refund. No
order is lost, has an effect twice, has its effects in the wrong sequence, or still waits. The exit status is 0 if all of
this is true. With `--mutant no-row-lock`, and with each other mutant of tests/service/chaos/mutants.py, the run should fail.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg
from chassis.database import Database, DatabaseUnavailable
from chassis.messaging.outbox import Outbox
from pydantic import SecretStr

from tests.service.chaos.mutants import MUTANTS, SWEEP_SECONDS
from tests.service.chaos.selling import die_order, shop_and_bank
from tests.service.chaos.shop.main import PlaceOrder, messages_of
from tests.service.chaos.system import Part, System, connect
from tests.service.chaos.troubles import Kind, kinds
from tests.support import brokers

DRAIN_SECONDS = 300
PATIENCE_SECONDS = 90
"""If nothing changes for this time, the run counts as ended, although its result is not good."""
LOST_SHARE = 0.3
REPEATS = 6
WORKERS = ("shop", "shop-2", "bank")

ORDERS = {
    "completed": ["reserve", "request", "confirm"],
    "abandoned": ["reserve", "request", "refund", "release"],
}
"""The effects of a saga in their order, by its final state. With a time-out, a reminder follows the first two."""
DUE = "UPDATE chassis.sagas SET due_at = clock_timestamp() WHERE due_at IS NOT NULL"
LOSE = "DELETE FROM chassis.outbox WHERE type = 'shop.advance-saga.v1' AND random() < $1"
SAGAS = "SELECT key::int AS number, version, state, problem FROM chassis.sagas"
CHANGED = "SELECT count(*), max(updated_at), sum(turn) FROM chassis.sagas"


@dataclass
class Count:
    """The result of a run. The numbers from `lost` on must be 0."""

    sagas: int
    charged: int = 0
    confirmed: int = 0
    refunded: int = 0
    lost: int = 0
    """Orders whose start was committed, and that have no saga."""
    stuck: int = 0
    """Sagas that have not ended."""
    parked: int = 0
    wrong: dict[int, list[str]] = field(default_factory=dict)
    """Orders whose effects came twice, or not at all, or in another order."""
    unbalanced: dict[int, list[str]] = field(default_factory=dict)
    """Orders with more or fewer charges than confirmations and refunds together."""
    happened: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> bool:
        bad = self.lost + self.stuck + self.parked + len(self.wrong) + len(self.unbalanced)
        return self.sagas > 0 and bad == 0 and self.charged == self.confirmed + self.refunded


class Chaos:
    """One run of the chaos over a running system."""

    def __init__(self, running: System, *, sagas: int, seed: int, longest_seconds: float) -> None:
        self.running, self._sagas, self._longest = running, sagas, longest_seconds
        self.dice = random.Random(seed)
        self._version = 1
        self._kinds = {
            **kinds(running),
            "deploy": Kind({"shop": self._deployed}, (0.5, 4)),
            "die": Kind({name: partial(self._dying, name) for name in WORKERS}, (0, 1)),
            "lose": Kind({"jobs": self._lost}, (0, 0)),
            "repeat": Kind({"jobs": self._repeated}, (0, 0)),
        }

    def plan(self, rounds: int) -> list[tuple[str, str]]:
        """Choose troubles in random order: each part is killed and dies, and each kind happens, if there are enough rounds."""
        once = [(name, victim) for name in ("die", "kill") for victim in self._kinds[name].victims]
        once += [self._of_kind(name) for name in self._kinds if name not in ("die", "kill")]
        # A version is deployed only once, so the other rounds choose among the other kinds of trouble.
        more = [self._of_kind(self.dice.choice(sorted(self._kinds.keys() - {"deploy"}))) for _ in range(rounds)]
        planned = [*once, *more][:rounds]
        self.dice.shuffle(planned)
        return planned

    def _of_kind(self, name: str) -> tuple[str, str]:
        return name, self.dice.choice(list(self._kinds[name].victims))

    async def torment(self, planned: Sequence[tuple[str, str]]) -> None:
        """Run the troubles one after the other, and restart workers that died by themselves."""
        for name, victim in planned:
            await self._pause(self.dice.uniform(0.3, 1.5))
            kind = self._kinds[name]
            lasts = min(self.dice.uniform(*kind.seconds), self._longest)
            _show(f"  {name} {victim} for {lasts:.1f} s")
            trouble = kind.victims[victim]()
            await asyncio.to_thread(trouble.__enter__)
            await asyncio.sleep(lasts)
            await asyncio.to_thread(trouble.__exit__, None, None, None)

    async def _pause(self, seconds: float) -> None:
        """Wait, and start each worker that killed itself. Raises RuntimeError for a worker that ended in another way."""
        until = time.monotonic() + seconds
        while True:
            for name, part in self.running.parts.items():
                if isinstance(part, Part) and part.status is not None:
                    if part.status != -signal.SIGKILL:
                        raise RuntimeError(f"{name} ended with status {part.status}:\n{self.running.logs()}")
                    part.start()
            if time.monotonic() >= until:
                return
            await asyncio.sleep(0.1)

    @contextlib.contextmanager
    def _deployed(self) -> Generator[None]:
        """Replace one worker of shop by the next version, start sagas of this version, and replace the other worker later."""
        self._replace("shop-2")
        self._version = 2
        yield
        self._replace("shop")

    def _replace(self, name: str) -> None:
        part = self.running.parts[name]
        assert isinstance(part, Part)
        part.stop()
        part.change(SHOP_VERSION="2")
        part.start()

    @contextlib.contextmanager
    def _dying(self, name: str) -> Generator[None]:
        """Let a worker die after its next commit, before the broker learns of the commit."""
        die_order(self.running.folder, name).touch()
        yield

    @contextlib.contextmanager
    def _repeated(self) -> Generator[None]:
        """Let the sweeps of both workers enqueue the jobs of all sagas several times, while the sagas run."""
        for _ in range(REPEATS):
            asyncio.run(_fetch(self.running.databases["shop"], DUE))
            time.sleep(SWEEP_SECONDS / 2)
        yield

    @contextlib.contextmanager
    def _lost(self) -> Generator[None]:
        """Delete a share of the sagas' jobs from the outbox, where the delayed jobs of all waits are."""
        asyncio.run(_fetch(self.running.databases["shop"], LOSE, LOST_SHARE))
        yield

    async def start_orders(self, *, per_second: float) -> int:
        """Start the sagas, each until its commit is acknowledged, some twice. Return their number."""
        databases = {version: self._database(version) for version in (1, 2)}
        async with databases[1], databases[2]:
            for number in range(1, self._sagas + 1):
                repeats = 2 if self.dice.random() < 0.1 else 1
                while repeats:
                    with contextlib.suppress(DatabaseUnavailable, asyncpg.PostgresError, OSError):
                        async with databases[self._version].unit_of_work() as uow:
                            await uow.start("place-order", PlaceOrder(number), key=str(number))
                        repeats -= 1
                    await asyncio.sleep(1 / per_second)
        return self._sagas

    def _database(self, version: int) -> Database:
        return Database(
            SecretStr(self.running.databases["shop"]),
            pool_size=1,
            name=f"orders-{version}",
            command_timeout_seconds=30,
            outbox=Outbox(messages_of(version)),
        )

    async def count(self, *, timeout_seconds: float) -> Count:
        """Wait until all orders are settled, nothing changes any more, or the time is over. Return the result.

        The result compares the recorded effects of each order with the effects that belong to its final state.
        """
        for name in WORKERS:  # from here on, nothing breaks
            die_order(self.running.folder, name).unlink(missing_ok=True)
        deadline, changed_at, last = time.monotonic() + timeout_seconds, time.monotonic(), None
        while True:
            await self._pause(0.5)
            result = await self._compare()
            state = (result, await _fetch(self.running.databases["shop"], CHANGED))
            if state != last:
                last, changed_at = state, time.monotonic()
            settled = time.monotonic() - changed_at
            if time.monotonic() > deadline or settled > (1 if result.good else PATIENCE_SECONDS):
                return result

    async def _compare(self) -> Count:
        shop, bank = self.running.databases["shop"], self.running.databases["bank"]
        sagas = {row["number"]: row for row in await _fetch(shop, SAGAS)}
        done, booked = defaultdict[int, list[str]](list), defaultdict[int, list[str]](list)
        for row in await _fetch(shop, "SELECT number, what FROM shop.done ORDER BY seq"):
            done[row["number"]].append(row["what"])
        for row in await _fetch(bank, "SELECT number, kind FROM bank.bookings ORDER BY seq"):
            booked[row["number"]].append(row["kind"])
        result = Count(self._sagas, lost=self._sagas - len(sagas))
        for url in (shop, bank):
            [[parked]] = await _fetch(url, "SELECT count(*) FROM chassis.parked")
            result.parked += parked
        for number, row in sagas.items():
            expected = ORDERS.get(row["state"], [])
            if row["state"] == "completed" and row["version"] >= 2:
                expected = [*expected, "notify"]
            if not expected:
                result.stuck += 1
            elif done[number] not in (expected, [*expected[:2], "remind", *expected[2:]]):
                result.wrong[number] = done[number]
            charges, refunds = booked[number].count("charge"), booked[number].count("refund")
            confirmations = done[number].count("confirm")
            if charges != confirmations + refunds or charges > 1:
                result.unbalanced[number] = [*booked[number], *done[number]]
            result.charged += charges
            result.confirmed += confirmations
            result.refunded += refunds
        return result


async def _fetch(url: str, query: str, *arguments: Any) -> list[Any]:
    connection = await connect(url)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


async def run(chaos: Chaos, planned: Sequence[tuple[str, str]], *, per_second: float, drain_seconds: float) -> Count:
    """Start the orders while the troubles happen, then count."""
    starting = asyncio.create_task(chaos.start_orders(per_second=per_second))
    await chaos.torment(planned)
    await starting
    result = await chaos.count(timeout_seconds=drain_seconds)
    result.happened = Counter(name for name, _ in planned)
    return result


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.service.chaos.sagas", description=__doc__.partition("\n")[0])
    parser.add_argument("broker", choices=brokers.BROKERS)
    parser.add_argument("--sagas", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=30, help="how many troubles, one after the other")
    parser.add_argument("--per-second", type=float, default=5, help="how many sagas start in a second")
    parser.add_argument("--longest", type=float, default=10, help="the longest trouble, in seconds")
    parser.add_argument("--drain", type=float, default=DRAIN_SECONDS, help="how long the sagas may take afterwards")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats the order of the troubles")
    parser.add_argument("--mutant", choices=MUTANTS, help="a fault of the chassis that the run should find")
    options = parser.parse_args()
    _show(f"{options.broker}: {options.sagas} sagas, {options.rounds} rounds, --seed {options.seed}")
    with shop_and_bank(options.broker, mutant=options.mutant) as running:
        chaos = Chaos(running, sagas=options.sagas, seed=options.seed, longest_seconds=options.longest)
        planned = chaos.plan(options.rounds)
        result = asyncio.run(run(chaos, planned, per_second=options.per_second, drain_seconds=options.drain))
        _show(str(result))
        if not result.good and not options.mutant:
            _show(running.logs())
    return 0 if result.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
