"""Temporary troubles of a running system. Each trouble is a context manager."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from tests.service.chaos.system import Killable, System, processes
from tests.support.link import Link

Trouble = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Kind:
    """A kind of trouble, with its possible victims, and its shortest and longest duration."""

    victims: dict[str, Trouble]
    seconds: tuple[float, float]


def kinds(system: System) -> dict[str, Kind]:
    """Return every kind of trouble of this system. A machine that cannot mount or change a clock has fewer."""
    found = {
        "kill": Kind({name: lambda it=part: killed(it) for name, part in system.parts.items()}, (0, 1)),
        # A process is frozen for longer than a lease, so that another process takes over. The first process must notice.
        "freeze": Kind({name: lambda it=part: frozen(it) for name, part in system.parts.items()}, (1, 20)),
        "partition": Kind({name: lambda it=link: partitioned(it) for name, link in system.links.items()}, (1, 20)),
        "deposed": Kind(
            {
                name: lambda it=link: deposed(it, next(iter(system.databases.values())))
                for name, link in system.links.items()
                if name.endswith("-database")
            },
            (5, 20),
        ),
        "cut": Kind({name: lambda it=link: cut(it) for name, link in system.links.items()}, (0, 3)),
        "full-disk": Kind(
            {name: lambda it=system.parts[name], at=disk: full(at, it) for name, disk in system.disks.items()}, (2, 5)
        ),
        "clock": Kind({name: lambda it=clock: wrong(it) for name, clock in system.clocks.items()}, (2, 5)),
    }
    return {name: kind for name, kind in found.items() if kind.victims}


def schedule(system: System, rounds: int, dice: random.Random) -> list[tuple[str, str]]:
    """Choose `rounds` times a kind and a victim, in random order: each part is killed and each kind happens at least

    once, if there are enough rounds.
    """
    known = kinds(system)
    once = [("kill", name) for name in system.parts]
    once += [(name, dice.choice(list(kind.victims))) for name, kind in known.items() if name != "kill"]
    picked = dice.choices(list(known), k=max(0, rounds - len(once)))
    drawn = [*once, *((name, dice.choice(list(known[name].victims))) for name in picked)][:rounds]
    dice.shuffle(drawn)
    return drawn


@contextlib.contextmanager
def killed(part: Killable) -> Generator[None]:
    """Kill the part by SIGKILL, then start it again."""
    part.kill()
    yield
    part.start()


@contextlib.contextmanager
def frozen(part: Killable) -> Generator[None]:
    """Freeze the part and its children, as on a machine that swaps or a virtual machine that migrates."""
    stopped = processes(part)
    _signal(stopped, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(stopped, signal.SIGCONT)


@contextlib.contextmanager
def partitioned(link: Link) -> Generator[None]:
    """Let the link pass no data and report no error. Afterwards all delayed data arrives."""
    link.freeze()
    try:
        yield
    finally:
        link.restore()


@contextlib.contextmanager
def deposed(link: Link, database: str) -> Generator[None]:
    """A partition in which the server ends the sessions: others may take their locks, and the client does not notice."""
    with partitioned(link):
        asyncio.run(_end_sessions(database, link.server_side()))
        yield


@contextlib.contextmanager
def cut(link: Link) -> Generator[None]:
    """Reset the connections, and refuse new connections."""
    link.cut()
    try:
        yield
    finally:
        link.restore()


@contextlib.contextmanager
def full(disk: Path, server: Killable) -> Generator[None]:
    """Fill the disk. Afterwards restart the server, as its operator would."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        with contextlib.suppress(OSError):
            while free := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)
        yield
    ballast.unlink()
    server.kill()
    server.start()


@contextlib.contextmanager
def wrong(clock: Path) -> Generator[None]:
    """Let the process' clock jump by ten minutes, and back."""
    clock.write_text(random.choice(["+600", "-600"]))
    try:
        yield
    finally:
        clock.write_text("+0")
        time.sleep(1)  # until libfaketime reads the file again


async def _end_sessions(database: str, ports: list[int]) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE client_port = ANY($1::int[])", ports
    )
    await connection.close()


def _signal(stopped: list[psutil.Process], number: signal.Signals) -> None:
    for process in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
