"""The database of the request that is being answered."""

from contextvars import ContextVar

from chassis.database import Database

current_database: ContextVar[Database] = ContextVar("current_database")
