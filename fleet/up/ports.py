"""Ports of this machine. A port that one run of `fleet up` has reserved is taken for the runs of other products."""

import fcntl
import socket
from functools import cache as once
from typing import BinaryIO

from fleet.cache import cache


def is_free(port: int) -> bool:
    """Return whether no program listens on this port of the loopback interface."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def reserve(port: int) -> bool:
    """Keep other runs of `fleet up` from this port until this process ends. Return False if the port is taken.

    A socket cannot do this: a service of an older chassis listens itself, so nothing holds its port while the service restarts.
    """
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):
        return False  # a probe of this port now could make the start of the other run's service fail
    if is_free(port):
        return True
    fcntl.lockf(_reservations(), fcntl.LOCK_UN, 1, port)
    return False


@once
def _reservations() -> BinaryIO:
    """Return the file in which the lock of byte N reserves port N. The file stays open: closing the file would end the locks."""
    cache().mkdir(parents=True, exist_ok=True)
    return (cache() / "ports.lock").open("wb")
