"""Map a constraint of a table to the domain error that its violation means."""

from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.sql.dml import Delete, UpdateBase

from chassis.errors import DomainError

_NAMES = dialect().identifier_preparer


def raises(
    error: type[DomainError], message: str, *, if_referenced: tuple[type[DomainError], str] | None = None
) -> dict[str, Any]:
    """Make the `info` of a constraint, so that a Statement which violates the constraint raises this error.

        sa.UniqueConstraint("number", info=raises(InvoiceNumberTaken, "another invoice has this number"))

    The message goes to the client. On a foreign key, `error` is about a row that refers to a missing row, and
    `if_referenced` about the deletion of a row that other rows refer to.
    """
    return {"raises": (error, message), "raises_if_referenced": if_referenced}


def raise_domain_error(error: asyncpg.IntegrityConstraintViolationError, statement: Any) -> None:
    """Raise the domain error of the violated constraint, if its table names such an error."""
    if not isinstance(statement, UpdateBase) or not isinstance(statement.table, sa.Table):
        return
    # For the deletion of a referenced row, PostgreSQL names the constraint and the table of the rows that refer to it.
    table = statement.table.metadata.tables.get(f"{error.schema_name}.{error.table_name}")
    referenced = isinstance(error, asyncpg.ForeignKeyViolationError) and (
        isinstance(statement, Delete) or table is not statement.table
    )
    for constraint in table.constraints if table is not None else ():
        if _NAMES.format_constraint(constraint) == error.constraint_name:
            found = constraint.info.get("raises_if_referenced" if referenced else "raises")
            if found is not None:
                raise found[0](found[1]) from error
