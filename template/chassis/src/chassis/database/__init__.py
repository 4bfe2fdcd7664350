"""Compiled SQL on a pool of connections, and explicit transactions."""

from chassis.database.children import rows_of, select_with_rows
from chassis.database.connection import Connection
from chassis.database.metadata import metadata_for
from chassis.database.outages import DatabaseUnavailable
from chassis.database.pool import Database
from chassis.database.statements import Executor, Row, Statement, optional
from chassis.database.unit_of_work import UnitOfWork
from chassis.database.violations import raises

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
    "raises",
    "rows_of",
    "select_with_rows",
]
