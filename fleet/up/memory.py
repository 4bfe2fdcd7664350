"""The folder `.fleet/` next to fleet.toml: data of the servers, logs, and the memory of `fleet up` for its next run."""

import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fleet.errors import FleetError
from fleet.processes.programs import wait_for_programs
from fleet.up.ports import reserve

FOLDER = ".fleet"
MADE = ("logs", "nats", "page", "postgres")
"""The folders in FOLDER that a run makes."""

FIRST_PORT = 8101
LOG_BYTES = 10 * 2**20
"""A longer log is set aside as NAME.old.log, and replaces the log that was set aside before."""


class Memory:
    """Ports, passwords and applied migrations. Only the owner of the folder can read it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "memory.json"
        self._known: dict[str, dict[str, Any]] = {}

    def lock(self) -> int:
        """Take the folder for this run, and return the descriptor of the lock. Raises FleetError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        (self.folder / ".gitignore").write_text("*\n")
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self.running() or not wait_for_programs(lock):
            os.close(lock)
            raise FleetError(
                f"another `fleet up` runs on {self.folder}: `fleet down` ends it, and `fleet up --status` shows its services"
            )
        with suppress(OSError, ValueError, RecursionError):
            known = json.loads(self._file.read_bytes())
            self._known = known if isinstance(known, dict) else {}
        return lock

    def forget(self) -> None:
        """Delete the data and the logs that earlier runs have made. Call it with the lock. Ports stay the same."""
        from chassis.dev.embedded import postgresql

        postgresql.delete(self.folder / "postgres")
        for name in MADE:
            if (self.folder / name).is_dir():
                shutil.rmtree(self.folder / name)
        self._known = {"ports": self._known.get("ports", {})}
        self._save()

    def secret(self, kind: str, name: str) -> str:
        """Return the secret of this name, the same in every run."""
        return self._recall(kind, name) or self.remember(kind, name, secrets.token_urlsafe(16))

    def port(self, name: str, *, is_ours: bool = True) -> int:
        """Return the port of this name. If another program or product has taken our port, choose a new port and keep it."""
        known = self._recall("ports", name)
        if known and (not is_ours or reserve(known)):
            return known
        taken = set(self._known.get("ports", {}).values())
        free = next(port for port in range(FIRST_PORT, 2**16) if port not in taken and reserve(port))
        return self.remember("ports", name, free)

    def applied(self, name: str) -> str:
        """Return the digest of the migrations that the database of this service has; empty if it is not known."""
        return self._recall("migrations", name) or ""

    def remember(self, kind: str, name: str, value: Any) -> Any:
        self._known.setdefault(kind, {})[name] = value
        self._save()
        return value

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    @property
    def control(self) -> Path:
        """The file with the address of the run, for other commands."""
        return self.folder / "control.json"

    def running(self) -> Mapping[str, Any] | None:
        """Return the port and the token at which the run of this folder takes commands; None if there is no run."""
        try:
            if not self._is_locked():  # the run was killed, and its port may belong to another program by now
                return None
            address = json.loads(self.control.read_bytes())
            socket.create_connection(("127.0.0.1", address["port"]), timeout=2).close()
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return address

    def _is_locked(self) -> bool:
        with (self.folder / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _recall(self, kind: str, name: str) -> Any:
        return self._known.get(kind, {}).get(name)

    def _save(self) -> None:
        write_private(self._file, self._known)


def write_private(file: Path, content: Any) -> None:
    """Replace a file that only its owner may read."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as output:
        json.dump(content, output)
    new.rename(file)


def open_log(path: Path) -> Any:
    """Open a log for appending. A long one is set aside first."""
    path.parent.mkdir(exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return path.open("ab", buffering=0)
