"""Compiled SQL on a pool of connections, and explicit transactions."""

from chassis.database.pool import Connection, Database, DatabaseUnavailable, UnitOfWork, metadata_for, optional
from chassis.database.statements import Executor, Row, Statement

__all__ = [
    "Connection",
    "Database",
    "DatabaseUnavailable",
    "Executor",
    "Row",
    "Statement",
    "UnitOfWork",
    "metadata_for",
    "optional",
]
