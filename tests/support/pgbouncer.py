"""pgbouncer from Debian's packages, in front of a test's server."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from chassis.dev.embedded import Process, free_port, spawn

from tests.support.tools import install_from_debian, one_at_a_time

START_TIMEOUT_SECONDS = 60
SERVER_SESSIONS = 4


@contextmanager
def pooled(url: str, mode: Literal["session", "transaction"]) -> Generator[str]:
    """Yield the URL of a pooler with few sessions of the server at `url`. Skips the test without pgbouncer."""
    program = installed()
    parts = urlsplit(url)
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        os.chmod(folder, 0o755)
        port = free_port()
        users, config = Path(folder, "users.txt"), Path(folder, "pgbouncer.ini")
        users.write_text(f'"{parts.username}" "{parts.password}"\n')
        config.write_text(
            f"[databases]\n* = host={parts.hostname} port={parts.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\npool_mode = {mode}\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\ndefault_pool_size = {SERVER_SESSIONS}\n"
        )
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = spawn([program, "-q", *user, str(config)], stop_signal=signal.SIGTERM)
        try:
            _wait_until_listening(process, port)
            yield parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
        finally:
            process.stop()


def installed() -> str:
    path = f"{os.environ['PATH']}:/usr/sbin"
    if not shutil.which("pgbouncer", path=path) and sys.platform == "linux" and os.geteuid() == 0:
        if shutil.which("apt-get") is None:
            pytest.skip("no pgbouncer, and no apt-get to install it")
        with one_at_a_time("pgbouncer"):
            if not shutil.which("pgbouncer", path=path):
                install_from_debian("pgbouncer")
    found = shutil.which("pgbouncer", path=path)
    if found is None:
        pytest.skip("no pgbouncer: install it")
    return found


def _wait_until_listening(process: Process, port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        assert process.child.poll() is None, "pgbouncer ended"
        assert time.monotonic() < deadline, "pgbouncer does not listen"
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
