"""Split the operations of `make migration` into migrations that never block other sessions for long.

An index of a table that has rows is built CONCURRENTLY, outside of a transaction. A foreign key is NOT VALID until a later
migration validates it. A unique constraint is made from an index that exists. A default that PostgreSQL computes for each row
comes after its column.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import render_op
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, DefaultClause
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import conv

Hook = Callable[[MigrationContext, Any, list[ops.MigrationScript]], None]
"""A function that changes a migration before Alembic writes its file."""

quoted = postgresql.dialect().identifier_preparer.quote


class Concurrently(ops.MigrateOperation):
    """Operations on indexes, in a block outside of the transaction. An operation that runs twice does no harm."""

    def __init__(self, operations: Iterable[ops.MigrateOperation]) -> None:
        self.operations = list(operations)
        for each in self.operations:
            if isinstance(each, ops.CreateIndexOp):
                each.kw["postgresql_concurrently"] = each.if_not_exists = True
            elif isinstance(each, ops.DropIndexOp):
                each.kw["postgresql_concurrently"] = each.if_exists = True

    def reverse(self) -> "Concurrently":
        return Concurrently(each.reverse() for each in reversed(self.operations))


@renderers.dispatch_for(Concurrently)
def _render(context: AutogenContext, operation: Concurrently) -> list[str]:
    lines = [line for each in operation.operations for line in render_op(context, each)]
    return ["with op.get_context().autocommit_block():", *lines, ""]


@dataclass
class Steps:
    """The operations that a later migration does, and `undoing`, the operations that undo the constraints."""

    indexes: list[ops.MigrateOperation] = field(default_factory=list)
    constraints: list[ops.MigrateOperation] = field(default_factory=list)
    undoing: list[ops.MigrateOperation] = field(default_factory=list)
    unvalidated: bool = False
    """Whether there are foreign keys that a later migration has to validate."""

    def split(self, upgrade: ops.UpgradeOps) -> list[ops.MigrateOperation]:
        """Leave the quick operations in `upgrade`, and move the operations on indexes and unique constraints to this object.

        If `upgrade` then has nothing but new foreign keys, no index can need a new table or column: return the operations on
        indexes for the same migration.
        """
        whole = {each.table_name for each in upgrade.ops if isinstance(each, ops.CreateTableOp | ops.DropTableOp)}
        groups = [each for each in upgrade.ops if isinstance(each, ops.ModifyTableOps) and each.table_name not in whole]
        for group in groups:
            dropped = {each.column_name for each in group.ops if isinstance(each, ops.DropColumnOp)}
            group.ops = [each for each in group.ops if self._stays(each, dropped)]
        rest = [each for group in groups for each in group.ops]
        alone = len(groups) == len(upgrade.ops) and all(isinstance(each, ops.CreateForeignKeyOp) for each in rest)
        return self.take_indexes() if alone else []

    def take_indexes(self) -> list[ops.MigrateOperation]:
        taken, self.indexes = self.indexes, []
        return [Concurrently(taken)] if taken else []

    def _stays(self, operation: ops.MigrateOperation, dropped: set[str]) -> bool:
        """Return whether an operation on an existing table stays in this migration. Store it for a later one otherwise.

        The index of a dropped column is dropped with the column.
        """
        if isinstance(operation, ops.DropIndexOp) and _may_need(operation, dropped):
            return True
        if isinstance(operation, ops.CreateIndexOp | ops.DropIndexOp):
            self.indexes.append(operation)
            return False
        if isinstance(operation, ops.CreateUniqueConstraintOp):
            self._make_of_index(operation)
            return False
        if isinstance(operation, ops.CreateForeignKeyOp):
            operation.kw["postgresql_not_valid"] = self.unvalidated = True
        return True

    def _make_of_index(self, unique: ops.CreateUniqueConstraintOp) -> None:
        options = {key: value for key, value in unique.kw.items() if key.startswith("postgresql_")}
        name = conv(str(unique.constraint_name))
        columns = list(unique.columns)
        self.indexes.append(
            ops.CreateIndexOp(name, unique.table_name, columns, schema=unique.schema, unique=True, **options)
        )
        deferred = " DEFERRABLE" if unique.kw.get("deferrable") else ""
        deferred += f" INITIALLY {unique.kw['initially']}" if unique.kw.get("initially") else ""
        made = f"ADD CONSTRAINT {quoted(name)} UNIQUE USING INDEX {quoted(name)}{deferred}"
        table = f"{unique.schema}.{quoted(unique.table_name)}"
        self.constraints.append(ops.ExecuteSQLOp(f"ALTER TABLE {table} {made}"))
        self.undoing.append(unique.reverse())


def _may_need(operation: ops.DropIndexOp, columns: set[str]) -> bool:
    """Return whether the index has one of these columns. An expression or a condition may have any column."""
    index = operation.to_index()
    plain = operation.kw.get("postgresql_where") is None and all(isinstance(each, Column) for each in index.expressions)
    return bool(columns) and not (plain and columns.isdisjoint(_columns(operation)))


def _columns(operation: ops.DropIndexOp) -> set[str]:
    return {*operation.to_index().columns.keys(), *operation.kw.get("postgresql_include", ())}


def shorten(upgrade: ops.UpgradeOps) -> None:
    """Let tables and columns be dropped with their indexes, and let a default that would rewrite a table follow its column."""
    tables = {each.table_name for each in upgrade.ops if isinstance(each, ops.DropTableOp)}
    for group in [each for each in upgrade.ops if isinstance(each, ops.ModifyTableOps)]:
        gone = {each.column_name for each in group.ops if isinstance(each, ops.DropColumnOp)}
        stay = [each for each in group.ops if not (isinstance(each, ops.DropIndexOp) and gone & _columns(each))]
        group.ops = [part for each in stay for part in _default_last(each)]
        if group.table_name in tables:
            upgrade.ops.remove(group)


def _default_last(operation: ops.MigrateOperation) -> list[ops.MigrateOperation]:
    """Split a new column from its default. A required column stays whole, because rows that exist would have no value."""
    if not isinstance(operation, ops.AddColumnOp):
        return [operation]
    column, default = operation.column, operation.column.server_default
    if not column.nullable or not isinstance(default, DefaultClause) or not _is_computed(default):
        return [operation]
    plain: Column[Any] = Column(column.name, column.type, nullable=True, comment=column.comment)
    table, schema = operation.table_name, operation.schema
    return [
        ops.AddColumnOp(table, plain, schema=schema),
        ops.AlterColumnOp(table, column.name, schema=schema, modify_server_default=default),
    ]


def _is_computed(default: DefaultClause) -> bool:
    """Return whether PostgreSQL may compute a value for each row. A plain text and now() have one value for all rows."""
    if isinstance(default.arg, str):
        return False
    return bool(re.search(r"(?<!\bnow)\(", str(default.arg.compile(dialect=postgresql.dialect()))))


def only(operations: Sequence[ops.MigrateOperation], *, undoing: Sequence[ops.MigrateOperation] | None = None) -> Hook:
    """Return the hook that writes a migration of these operations alone. By default its downgrade reverses each of them."""
    undoing = [each.reverse() for each in reversed(operations)] if undoing is None else undoing

    def replace(_: MigrationContext, __: Any, directives: list[ops.MigrationScript]) -> None:
        directives[0].upgrade_ops = ops.UpgradeOps(operations)
        directives[0].downgrade_ops = ops.DowngradeOps(undoing)

    return replace
