"""The database of the current request."""

from contextvars import ContextVar

from chassis.database import Database

current_database: ContextVar[Database] = ContextVar("current_database")
