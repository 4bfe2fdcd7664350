"""POSTs with idempotency keys, repeated blindly, while their clients, servers and database are killed.

    python -m tests.service.chaos.repeats --posts 500 --seed 7

A client process repeats each POST with its key until it has an answer, and starts again with all of its keys after each
kill. Two server processes kill themselves right before and right after a share of their commits, which are the moments
that matter. The database is killed, too. At the end each POST has had exactly one effect, and each key one answer. The
exit status is 0 if that is so. With `--apart` the servers store answers in a commit of their own, and the run must fail.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
from asyncpg.transaction import Transaction
from chassis.application import application
from chassis.commands import main as command_line
from chassis.database import migrate
from chassis.http import ResourceRoute, new_id, transaction
from chassis.idempotency import IdempotencyKeys, stored_answers
from chassis.idempotency.one_commit import OneCommit
from chassis.idempotency.stored_answers import Answer
from chassis.service import Service
from chassis.settings import Settings
from fastapi import APIRouter, FastAPI

from tests.chassis.tiny.api import INSERT, NewThing, Thing
from tests.chassis.tiny.main import SERVICE as TINY
from tests.service.chaos.system import Part, Postgres
from tests.support import brokers
from tests.support.query import ask

TIMEOUT_SECONDS = 600
"""The most that a run may take on a busy machine. The number of kills has a bound of its own."""
AT_ONCE = 8
DYING_SHARE = 0.04
"""A server kills itself right before this share of its commits, and right after the same share."""

router = APIRouter(prefix="/v1", route_class=ResourceRoute)


class Served(Service):
    """A service whose application has the routes of this module, and not of its package."""

    def create_app(self, settings: Settings) -> FastAPI:
        return application(self, settings)


SERVICE = Served(**vars(dataclasses.replace(TINY, routers=[router], idempotency=IdempotencyKeys())))


@router.post("/things", status_code=201)
async def create_thing(body: NewThing) -> Thing:
    """Insert a row. No constraint would refuse a second row of the same request."""
    made = new_id()
    thing = Thing(id=made, name=f"{made.hex}"[:40], email=f"{body.name} {made.hex}")
    async with transaction() as uow:
        await INSERT.run(uow.connection, **thing.model_dump(exclude={"version"}))
    return thing


# --- the processes ----------------------------------------------------------------------------------------------------


async def commit_apart(self: OneCommit, answer: Answer) -> None:
    """Commit the change, and then the answer, as a middleware would that knows no transaction of its route."""
    async with self._transaction:
        self._ended, self._uow = True, None
    async with self._database.unit_of_work() as uow:
        await stored_answers.keep(uow.connection, self._key, answer)


def serve(seed: int, *, apart: bool) -> int:
    """Serve, and kill this process right before or right after a share of its commits."""
    if apart:
        OneCommit.commit = commit_apart
    dice = random.Random(seed)
    commit = Transaction.commit

    def perhaps_die() -> None:
        if dice.random() < DYING_SHARE:
            os.kill(os.getpid(), signal.SIGKILL)

    async def dying(self: Any) -> None:
        if self._nested:
            await commit(self)
            return
        perhaps_die()
        await commit(self)
        perhaps_die()

    Transaction.commit = dying
    sys.argv[1:] = ["serve"]
    return command_line(SERVICE)


async def send_all(bases: list[str], posts: int, answered: Path) -> None:
    """Send each POST until it has an answer, by any server, and note the id in the answer."""
    places = asyncio.Semaphore(AT_ONCE)
    limits = httpx2.Limits(max_connections=AT_ONCE)
    async with httpx2.AsyncClient(timeout=10, limits=limits) as client, asyncio.TaskGroup() as tasks:
        with answered.open("a", buffering=1) as notes:

            async def send(number: int) -> None:
                async with places:
                    while True:
                        with contextlib.suppress(httpx2.HTTPError):
                            url = f"{random.choice(bases)}/v1/things"
                            headers = {"Idempotency-Key": f"post-{number}"}
                            response = await client.post(url, json={"name": f"post {number}"}, headers=headers)
                            if response.status_code == 201:
                                notes.write(f"{number} {response.json()['id']}\n")
                                return
                            if response.status_code not in (409, 503):
                                raise RuntimeError(f"{response.status_code}: {response.text}")
                        await asyncio.sleep(0.05)

            for task in [tasks.create_task(send(number)) for number in range(posts)]:
                await task


# --- the run ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Outcome:
    """The result of a run: the effects of each POST, the ids that clients got, and the kills of each part."""

    posts: int
    effects: Counter[int]
    told: dict[int, set[UUID]]
    stored: dict[int, UUID]
    killed: Counter[str]

    @property
    def good(self) -> bool:
        once = self.effects == Counter(range(self.posts))
        return once and self.told == {number: {self.stored[number]} for number in range(self.posts)}

    def __str__(self) -> str:
        wrong = {number: self.effects[number] for number in range(self.posts) if self.effects[number] != 1}
        untrue = [number for number, ids in self.told.items() if ids != {self.stored.get(number)}]
        return f"{self.posts} posts, {self.effects.total()} effects, kills {dict(self.killed)}, wrong {wrong}, untrue {untrue}"


@contextlib.contextmanager
def parts(folder: Path, posts: int, seed: int, *, apart: bool) -> Generator[dict[str, Any]]:
    """Start the database and two servers, and yield them with a client, which is not started."""
    (folder / "postgres").mkdir()
    postgres = Postgres(folder / "postgres", brokers.free_port())
    with contextlib.ExitStack() as stack:
        postgres.start()
        stack.callback(postgres.stop)
        migrate.upgrade(SERVICE, postgres.url)
        program = [sys.executable, "-m", "tests.service.chaos.repeats", "--seed"]
        ports = [brokers.free_port() for _ in range(2)]
        made: dict[str, Any] = {"database": postgres}
        for number, port in enumerate(ports):
            settings = {"DATABASE_URL": postgres.url, "HTTP_PORT": str(port), "DRAIN_SECONDS": "0"}
            server = Part(
                [*program, f"{seed + number}", "--serve", *["--apart"][: int(apart)]],
                folder / f"server-{number}.log",
                **settings,
            )
            made[f"server {number}"] = server
        bases = [f"http://127.0.0.1:{port}" for port in ports]
        work = ["--posts", f"{posts}", "--notes", str(folder / "notes"), "--send", *bases]
        made["client"] = Part([*program, f"{seed}", *work], folder / "client.log")
        for name, part in made.items():
            if name != "database":
                part.start()
                stack.callback(part.stop)
        yield made


def run(posts: int, *, kills: int, seed: int, apart: bool = False) -> Outcome:
    """Kill parts until the client has all answers, and count the effects. Raises TimeoutError."""
    dice, killed = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="repeats-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        notes = folder / "notes"
        notes.touch()
        with parts(folder, posts, seed, apart=apart) as made:
            deadline, noted = time.monotonic() + TIMEOUT_SECONDS, 0
            # A kill is due after a fixed number of posts and not after a time, so that the speed of the machine does not change how many there are.
            due = max(1, posts // kills)
            while (status := made["client"].status) != 0:
                if time.monotonic() > deadline or status not in (None, -signal.SIGKILL):
                    raise TimeoutError("\n".join(log.read_text()[-3000:] for log in folder.glob("*.log")))
                for part in ("server 0", "server 1"):
                    if made[part].status is not None:
                        killed["a server by itself"] += 1
                        made[part].start()
                if (answered := len({line.split()[0] for line in notes.read_text().splitlines()})) >= noted + due:
                    noted = answered
                    victim = dice.choice(["client", "database", "server 0", "server 1"])
                    killed[victim] += 1
                    made[victim].kill()
                    made[victim].start()
                time.sleep(0.01)
            rows = ask(made["database"].url, "SELECT string_agg(email, ',') FROM tiny.things").split(",")
        told: dict[int, set[UUID]] = {}
        for line in notes.read_text().splitlines():
            number, made_id = line.split()
            told.setdefault(int(number), set()).add(UUID(made_id))
    stored = {int(row.split()[1]): UUID(row.split()[2]) for row in rows}
    return Outcome(posts, Counter(int(row.split()[1]) for row in rows), told, stored, killed)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--posts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--send", nargs="*", default=[])
    parser.add_argument("--notes", type=Path)
    options = parser.parse_args()
    if options.serve:
        return serve(options.seed, apart=options.apart)
    if options.send:
        asyncio.run(send_all(options.send, options.posts, options.notes))
        return 0
    outcome = run(options.posts, kills=options.kills, seed=options.seed, apart=options.apart)
    sys.stdout.write(f"seed {options.seed}: {outcome}\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
