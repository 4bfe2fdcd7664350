"""Run real servers from their wheels, without Docker, root or system packages: PostgreSQL, and NATS in `nats_server`.

Development and tests use them. A watchdog process ends the server if this process ends in any way, even by kill -9.
"""

from chassis.dev.embedded.child_process import EmbeddedServerError, Process, free_port, spawn
from chassis.dev.embedded.postgresql import PROGRAMS, postgres, postgres_program, temporary_postgres

__all__ = [
    "PROGRAMS",
    "EmbeddedServerError",
    "Process",
    "free_port",
    "postgres",
    "postgres_program",
    "spawn",
    "temporary_postgres",
]
