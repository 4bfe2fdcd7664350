"""Run real servers (PostgreSQL, NATS) from their wheels, without Docker, root or system packages.

Development and tests use them. A watchdog process ends the server if this process ends in any way, even by kill -9.
"""

from chassis.dev.embedded.child_process import EmbeddedServerError, Process, free_port, spawn
from chassis.dev.embedded.nats_server import nats, nats_program, temporary_nats
from chassis.dev.embedded.postgresql import PROGRAMS, postgres, postgres_program, temporary_postgres

__all__ = [
    "PROGRAMS",
    "EmbeddedServerError",
    "Process",
    "free_port",
    "nats",
    "nats_program",
    "postgres",
    "postgres_program",
    "spawn",
    "temporary_nats",
    "temporary_postgres",
]
