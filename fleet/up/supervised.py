"""Keep one service running: install it, migrate its database, start it again after a save, a crash or a command."""

import asyncio
import hashlib
import json
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fleet.errors import FleetError
from fleet.git import git
from fleet.processes.programs import Guard
from fleet.up.memory import Memory
from fleet.up.output import Output
from fleet.up.process import Process
from fleet.up.product import Checkout
from fleet.up.refusal import Refusal
from fleet.up.wiring import Shared, environment, unknown_settings
from fleet.update.generated import team_environment

State = Literal["starting", "ready", "unready", "broken", "stopped"]

ATTEMPTS = 3
PAUSE_SECONDS = 0.5
START_SECONDS = 60
LOOK_SECONDS = 2
ANSWER_SECONDS = 5
RECOVERED_SECONDS = 10
"""A process that ran this long does not count as a failed attempt when it ends."""

BUILT_FROM = ("uv.lock", "pyproject.toml", "chassis/pyproject.toml", ".copier-answers.yml")
SHOWN_ELSEWHERE = ("status", "version")


class StartFailed(Exception):
    """The service does not run. The message is the reason for people, such as a traceback."""


@dataclass(frozen=True)
class Tools:
    """The parts that all services of a run share."""

    memory: Memory
    guard: Guard
    shared: asyncio.Future[Shared]
    known: list[Checkout]
    output: Callable[[str], Output]
    tell: Callable[[str], None]


class Supervised:
    """One service, and its state for people: starting, ready, unready, broken or stopped."""

    def __init__(self, checkout: Checkout, port: int, tools: Tools) -> None:
        self.checkout, self.port, self._tools = checkout, port, tools
        self.state: State = "starting"
        self.doing = self.problem = ""
        self.version = self.migration = self.note = ""
        self.restarts = -1
        self.process: Process | None = None
        self._is_wanted, self._asked = True, asyncio.Event()
        self._output = tools.output(checkout.name)
        self._listener: socket.socket | None = None
        self._refusal: Refusal | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def known(self) -> list[Checkout]:
        """All services that this one may call."""
        return self._tools.known

    def ask(self, action: str) -> None:
        """Start, stop or restart the service soon."""
        self._is_wanted = action != "stop"
        self.state, self.doing = "starting", ""
        self._asked.set()

    def has_done(self, action: str) -> bool:
        """Return whether nothing of what was asked for is under way any more."""
        return self.state == "stopped" if action == "stop" else self.state not in ("starting", "stopped")

    async def run(self) -> None:
        """Keep the service as it was asked for, until this is cancelled."""
        failures = 0
        try:
            while True:
                self._asked.clear()
                if not self._is_wanted:
                    await self._rest("stopped", "")
                    continue
                began = time.monotonic()
                try:
                    await self._start()
                    await self._watch()
                    failures = 0
                except StartFailed as error:
                    has_run = self.state != "starting" and time.monotonic() - began > RECOVERED_SECONDS
                    failures = 1 if has_run else failures + 1
                    await self._fail(str(error), failures)
                    failures %= ATTEMPTS
                except FleetError as error:
                    await self._rest_broken(str(error))
                except OSError as error:  # such as a checkout that was moved: the others go on
                    await self._rest_broken(f"cannot start: {error}")
        finally:
            if self.process:
                await self.process.stop()
            self._release()
            self._output.close()

    async def _fail(self, problem: str, failures: int) -> None:
        """Show the problem. After the last attempt wait for a save; else let the next attempt begin."""
        if failures == 1:
            self._tools.tell(f"{self.checkout.name} has ended:\n{problem}")
        if failures == ATTEMPTS:
            self._tools.tell(f"{self.checkout.name} does not run, and starts again after a save")
            await self._rest("broken", problem)
        elif self.state == "starting":
            self.problem = problem
            await self._refuse()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _rest_broken(self, problem: str) -> None:
        self._tools.tell(f"{self.checkout.name} {problem}")
        await self._rest("broken", problem)

    async def _rest(self, state: State, problem: str) -> None:
        await self._refuse()
        self.state, self.problem, self.doing = state, problem, ""
        await self._asked.wait()

    async def _refuse(self) -> None:
        if self._refusal:
            await self._refusal.open()

    async def _start(self) -> None:
        """Raises StartFailed, and FleetError for a reason that another attempt does not remove."""
        self.state, self.restarts = "starting", self.restarts + 1
        self._output.begin()
        self._listen()
        if not _is_installed(self.checkout.folder):
            await self._refuse()
            self._tools.tell(f"{self.checkout.name} is installed by `make setup`")
            await self._run("installing", "make", "setup")
            self._listen()
        shared = await asyncio.shield(self._tools.shared)
        if lacking := unknown_settings(self.checkout, self._tools.known):
            raise FleetError(f"needs {', '.join(lacking)}: write it into `settings` of its entry in fleet.toml")
        variables = environment(self.checkout, self._tools.known, shared)
        self.version = await asyncio.to_thread(_version, self.checkout.folder)
        await self._migrate(variables)
        await self._serve(variables | {"SERVICE_VERSION": self.version or "0.0.0"})

    def _listen(self) -> None:
        """Hold the socket of the service, unless its chassis cannot take it: then only the service itself can listen."""
        takes = _takes_socket(self.checkout.folder)
        self.note = "its chassis takes no socket, so calls fail while it restarts" if takes is False else ""
        if takes is False:
            self._release()
        elif self._listener is None:
            try:
                self._listener = socket.create_server(("127.0.0.1", self.port))
            except OSError as error:
                raise FleetError(f"cannot listen on port {self.port}: {error.strerror}") from None
            self._refusal = Refusal(self._listener, lambda: f"{self.checkout.name} does not run under `fleet up`")

    def _release(self) -> None:
        if self._listener and self._refusal:
            self._refusal.close()
            self._listener.close()
        self._listener = self._refusal = None

    async def _run(self, doing: str, *command: str, variables: dict[str, str] | None = None) -> None:
        self.doing = doing
        self.process = await self._spawn(command, variables or team_environment())
        try:
            status = await asyncio.shield(self.process.ended)
        finally:
            await self.process.stop()
        if status != 0:
            raise StartFailed(self._end())

    def _end(self) -> str:
        """Describe how the process has ended, with its last words."""
        assert self.process
        status = self.process.ended.result()
        how = f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"
        return f"{how}\n{self._output.tail()}".rstrip()

    async def _spawn(self, command: tuple[str, ...], variables: dict[str, str], *descriptors: int) -> Process:
        return await Process.start(
            command,
            folder=self.checkout.folder,
            environment=variables,
            output=self._output,
            guard=self._tools.guard,
            descriptors=descriptors,
        )

    def _program(self, command: str) -> tuple[str, ...]:
        return (str(self.checkout.folder / ".venv/bin/python"), "-m", self.checkout.package, command)

    async def _migrate(self, variables: dict[str, str]) -> None:
        """Apply the migrations, by the service's own role, unless the database is known to have them."""
        digest, newest = _migrations(self.checkout, variables["DATABASE_URL"])
        if self._tools.memory.applied(self.checkout.name) != digest:
            await self._run("migrating", *self._program("migrate"), variables=variables)
            self._tools.memory.remember("migrations", self.checkout.name, digest)
        self.migration = newest

    async def _serve(self, variables: dict[str, str]) -> None:
        self.doing = ""
        descriptors = [self._listener.fileno()] if self._listener else []
        if self._refusal:
            self._refusal.close()
            variables = variables | {"HTTP_FD": str(descriptors[0])}
        began = time.monotonic()
        self._output.begin()
        self.process = await self._spawn(self._program("serve"), variables, *descriptors)
        looking = asyncio.create_task(self._until_ready())
        try:
            await asyncio.wait(
                [looking, self.process.ended], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            looking.cancel()
        if self.process.ended.done():
            raise StartFailed(self._end())
        if self.state == "starting":
            await self.process.stop()
            raise StartFailed(f"it did not answer within {START_SECONDS} s\n{self._output.tail()}".rstrip())
        self._tools.tell(f"{self.checkout.name} {self.state} after {time.monotonic() - began:.1f} s")

    async def _until_ready(self) -> None:
        """Wait for an answer to a request, which waits in the socket's queue until the service takes it."""
        deadline = time.monotonic() + START_SECONDS / 2
        while True:
            try:
                await self._look(START_SECONDS)
            except (OSError, ValueError):
                await asyncio.sleep(0.1)
                continue
            if self.state == "ready" or time.monotonic() > deadline:
                return
            await asyncio.sleep(0.2)

    async def _watch(self) -> None:
        """Look at the process until it is asked to change. Raises StartFailed if it ends by itself."""
        assert self.process
        asked = asyncio.create_task(self._asked.wait())
        try:
            while True:
                await asyncio.wait(
                    [asked, self.process.ended], timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if asked.done():
                    return await self.process.stop()
                if self.process.ended.done():
                    raise StartFailed(self._end())
                try:
                    await self._look(ANSWER_SECONDS)
                except (OSError, ValueError):
                    self.state, self.problem = "unready", "it does not answer /readyz"
        finally:
            asked.cancel()

    async def _look(self, seconds: float) -> None:
        """Ask the service whether it is ready. Raises OSError or ValueError if it gives no usable answer."""
        status, details = await ask(self.port, "/readyz", seconds)
        self.doing = ""
        self.state, self.problem = ("ready", "") if status == 200 else ("unready", _describe(details))


async def ask(port: int, path: str, seconds: float) -> tuple[int, Any]:
    """Send a GET request. Return the status and the JSON of the answer. Raises OSError or ValueError."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read(2**16)
            while more := await reader.read(2**16):
                answer = (answer + more)[: 2**20]
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        return int(head.split(b" ", 2)[1]) if head.count(b" ") > 1 else 0, json.loads(body)
    except RecursionError:
        raise ValueError("the answer nests too deeply") from None


def _describe(details: Any) -> str:
    facts = details if isinstance(details, dict) else {}
    return "not ready: " + ", ".join(f"{name} {value}" for name, value in facts.items() if name not in SHOWN_ELSEWHERE)


def _is_installed(folder: Path) -> bool:
    """Return whether `make setup` has nothing to do."""
    try:
        installed = (folder / ".venv/.ready").stat().st_mtime
        if not (folder / "uv.lock").exists():
            return False
    except OSError:
        return False
    return all(not (folder / name).exists() or (folder / name).stat().st_mtime <= installed for name in BUILT_FROM)


def _takes_socket(folder: Path) -> bool | None:
    """Return whether `serve` takes a descriptor; None if the chassis is not installed yet."""
    places = [folder / "chassis/src/chassis", *folder.glob(".venv/lib/python3*/site-packages/chassis")]
    files = [place / "settings/settings.py" for place in places if (place / "settings").is_dir()]
    return any(b"http_fd" in file.read_bytes() for file in files if file.is_file()) if files else None


def _migrations(checkout: Checkout, url: str) -> tuple[str, str]:
    """Return a digest of the database's address and its migrations, and the name of the service's newest migration."""
    own = sorted((checkout.folder / f"src/{checkout.package}/migrations/versions").glob("[!.]*.py"))
    chassis = checkout.folder / "chassis/src/chassis/database/migrations/versions"
    of_chassis = sorted(chassis.glob("*.py")) or [checkout.folder / "uv.lock"]
    digest = hashlib.sha256(url.encode())
    for path in [*own, *of_chassis]:
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest(), next((path.stem for path in reversed(own) if path.stem[:1].isdigit()), "")


def _version(folder: Path) -> str:
    """Return the commit that is checked out; empty without a repository."""
    try:
        return git.answer(folder, "rev-parse", "--short", "HEAD") or ""
    except FleetError:
        return ""
