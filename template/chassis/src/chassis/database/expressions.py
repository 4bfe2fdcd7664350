"""Parts of a schema that Alembic does not compare: CHECK constraints, indexes on more than plain columns, sequences, and
whether Postgres has checked the existing rows against a foreign key.

Only Postgres can compare two expressions, because it rewrites each. `make migration` writes the CHECK constraints and new
sequences; Alembic writes new indexes.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.elements import conv

from chassis.database.safe_steps import Hook, Steps, quoted, shorten

UNVALIDATED = " NOT VALID"
_CHECKS = text("""
    SELECT relname, conname, pg_get_constraintdef(pg_constraint.oid) AS rule,
        pg_get_expr(conbin, conrelid) AS expression
    FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
    WHERE contype = 'c' AND relname <> ALL(:leaving) AND relnamespace = CAST(:schema AS regnamespace)
""")


_INDEXES = text("""
    SELECT relname, regexp_replace(pg_get_indexdef(indexrelid), ' ON [^ ]+[.]', ' ON ') FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relname = ANY(:indexes) AND relnamespace = CAST(:schema AS regnamespace)
""")
_FOREIGN_KEYS = text("""
    SELECT relname, conname, convalidated FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
    WHERE contype = 'f' AND relnamespace = CAST(:schema AS regnamespace)
""")
_SEQUENCES = text("SELECT sequencename FROM pg_sequences WHERE schemaname = :schema")


class Name(NamedTuple):
    table: str
    constraint: str


class Check(NamedTuple):
    """A constraint as Postgres writes it: its whole rule, and the expression alone."""

    rule: str
    expression: str

    @property
    def validated(self) -> "Check":
        return Check(self.rule.removesuffix(UNVALIDATED), self.expression)


Checks = dict[Name, Check]


@dataclass(frozen=True)
class Differences:
    """The CHECK constraints of the migrated database and of the code, and the indexes that differ."""

    migrated: Checks
    modelled: Checks
    indexes: list[str]
    """Lines about indexes on expressions, for people."""
    sequences: list[str]
    """The sequences of the code that the database lacks."""
    foreign_keys: list[Name]
    """The foreign keys of the code that are NOT VALID in the database."""

    @property
    def surplus(self) -> Checks:
        """The constraints of the database that the code lacks, or has with another rule."""
        return {name: check for name, check in self.migrated.items() if self.modelled.get(name) != check.validated}

    @property
    def missing(self) -> Checks:
        """The constraints of the code that the database lacks, or has with another rule."""
        return {
            name: check
            for name, check in self.modelled.items()
            if name not in self.migrated or self.migrated[name].validated != check
        }

    @property
    def unvalidated(self) -> list[Name]:
        """The constraints that are NOT VALID: PostgreSQL has not checked the rows that existed before the constraint."""
        checks = self.migrated.items()
        unvalidated = [name for name, check in checks if self.modelled.get(name) == check.validated != check]
        return [*unvalidated, *self.foreign_keys]

    def lines(self) -> list[str]:
        pairs = [("in the migrations", self.migrated, self.modelled), ("in the code", self.modelled, self.migrated)]
        return [
            f"  only {where}: {name.table}.{name.constraint}: {check.rule}"
            for where, these, those in pairs
            for name, check in sorted(these.items())
            if those.get(name) != check
        ] + [
            *self.indexes,
            *(f"  only in the code: the sequence {name}" for name in self.sequences),
            *(f"  NOT VALID in the migrations: {name.table}.{name.constraint}" for name in self.foreign_keys),
        ]


def indexes_on_expressions(tables: sa.MetaData) -> list[str]:
    """Return the names of the indexes that have more than plain columns."""
    indexes = (index for table in tables.tables.values() for index in table.indexes)
    return [str(one.name) for one in indexes if not all(isinstance(part, sa.Column) for part in one.expressions)]


def compare(engine: AsyncEngine, tables: sa.MetaData) -> Differences:
    """Compare an upgraded database with the tables in the code.

    Postgres creates the tables in the code too, in a schema that is rolled back.
    """
    return asyncio.run(_compare(engine, tables))


async def _compare(engine: AsyncEngine, tables: sa.MetaData) -> Differences:
    async with engine.connect() as plain:
        connection = await plain.execution_options(schema_translate_map={tables.schema: "models"})
        await connection.execute(text("CREATE SCHEMA models"))
        await connection.run_sync(tables.create_all)
        known = set(await connection.scalars(_SEQUENCES, {"schema": tables.schema}))
        checks, indexes, keys = [], [], []
        for schema in (tables.schema, "models"):
            leaving = list(tables.info.get("leaving", ()))
            found = await connection.execute(_CHECKS, {"schema": schema, "leaving": leaving})
            checks.append({Name(row.relname, row.conname): Check(row.rule, row.expression) for row in found})
            found = await connection.execute(_FOREIGN_KEYS, {"schema": schema})
            keys.append({Name(row.relname, row.conname): row.convalidated for row in found})
            named = {"schema": schema, "indexes": indexes_on_expressions(tables)}
            indexes.append({(name, rule) for name, rule in await connection.execute(_INDEXES, named)})
        await connection.rollback()
    await engine.dispose()
    places = ("migrations", indexes[0] - indexes[1]), ("code", indexes[1] - indexes[0])
    lines = [f"  only in the {place}: {rule}" for place, found in places for _, rule in sorted(found)]
    sequences = sorted({str(each.name) for each in tables._sequences.values()} - known)
    unvalidated = [name for name, validated in sorted(keys[0].items()) if name in keys[1] and not validated]
    return Differences(*checks, indexes=lines, sequences=sequences, foreign_keys=unvalidated)


def writer(found: Differences, tables: sa.MetaData, steps: Steps) -> Hook:
    """Return the hook of Alembic that adds constraints to a new migration, and leaves slow operations to `steps`.

    New constraints are NOT VALID: a later migration validates them, without a lock that blocks other sessions.
    """

    def add(context: MigrationContext, _: Any, directives: list[ops.MigrationScript]) -> None:
        expressions = _expressions(tables, context)
        upgrade, downgrade = directives[0].upgrade_ops, directives[0].downgrade_ops
        assert upgrade is not None
        assert downgrade is not None
        indexes = steps.split(upgrade)
        upgrade.reverse_into(downgrade)
        shorten(upgrade)
        # A new table is created with its constraints, and a dropped table takes its constraints with it.
        whole = {each.table_name for each in upgrade.ops if isinstance(each, ops.CreateTableOp | ops.DropTableOp)}
        all_surplus = {name: check.expression for name, check in found.surplus.items()}
        all_missing = {name: expressions.get(name, check.expression) for name, check in found.missing.items()}
        _escape_in_tables(upgrade.ops, all_missing)
        _escape_in_tables(downgrade.ops, all_surplus)
        surplus = {name: rule for name, rule in all_surplus.items() if name.table not in whole}
        made = _made_with_types(upgrade.ops, tables)
        missing = {name: rule for name, rule in all_missing.items() if name.table not in whole and name not in made}
        schema = tables.schema
        sequences = [f"{schema}.{quoted(name)}" for name in found.sequences]
        upgrade.ops = [
            *indexes,
            *(ops.ExecuteSQLOp(f"CREATE SEQUENCE {name}") for name in sequences),
            *_drops(surplus, schema),
            *upgrade.ops,
            *_creations(missing, schema),
        ]
        upgrade.ops += validations(found.unvalidated, schema)
        downgrade.ops = [
            *(each.reverse() for each in indexes),
            *_drops(missing, schema),
            *downgrade.ops,
            *_creations(surplus, schema),
            *(ops.ExecuteSQLOp(f"DROP SEQUENCE {name}") for name in sequences),
        ]

    return add


def validations(names: Iterable[Name], schema: str | None) -> list[ops.MigrateOperation]:
    """Return the checks of the existing rows."""
    return [
        ops.ExecuteSQLOp(f"ALTER TABLE {schema}.{quoted(name.table)} VALIDATE CONSTRAINT {quoted(name.constraint)}")
        for name in names
    ]


def _drops(names: Iterable[Name], schema: str | None) -> list[ops.MigrateOperation]:
    return [ops.DropConstraintOp(conv(name.constraint), name.table, schema=schema) for name in sorted(names)]


def _creations(expressions: dict[Name, str], schema: str | None) -> list[ops.MigrateOperation]:
    return [
        ops.CreateCheckConstraintOp(
            conv(name.constraint), name.table, _for_a_script(expression), schema=schema, postgresql_not_valid=True
        )
        for name, expression in sorted(expressions.items())
    ]


def _escape_in_tables(operations: Iterable[ops.MigrateOperation], expressions: dict[Name, str]) -> None:
    """Let the CHECK constraints of new tables have these expressions. Alembic would leave out the escapes."""
    for operation in operations:
        if isinstance(operation, ops.CreateTableOp):
            operation.columns = [
                sa.CheckConstraint(_for_a_script(expressions[name]), name=conv(name.constraint))
                if isinstance(part, sa.CheckConstraint)
                and (name := Name(operation.table_name, str(part.name))) in expressions
                and not part._type_bound
                else part
                for part in operation.columns
            ]


def _made_with_types(operations: Iterable[ops.MigrateOperation], tables: sa.MetaData) -> set[Name]:
    """Return the CHECK constraints that come with the type of a new column, such as sa.Enum(create_constraint=True)."""
    changes = [each for group in operations if isinstance(group, ops.ModifyTableOps) for each in group.ops]
    columns = {(each.table_name, each.column.name) for each in changes if isinstance(each, ops.AddColumnOp)}
    for each in changes:
        if isinstance(each, ops.AlterColumnOp) and each.modify_type is not None:
            columns.add((each.table_name, each.column_name))
    return {
        Name(table.name, str(constraint.name))
        for table in tables.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint) and constraint._type_bound
        if any((table.name, column.name) in columns for column in constraint.columns)
    }


def _for_a_script(expression: str) -> Any:
    """Return an expression that Alembic writes with escapes, so that the migration takes no colon for a parameter."""
    escaped = text(expression).compile().params or r"\:" in expression
    return sa.literal_column(expression.replace(":", r"\:") if escaped else expression)


def _expressions(tables: sa.MetaData, context: MigrationContext) -> dict[Name, str]:
    """Return the expressions as the code writes them, which people read more easily than Postgres' form."""
    return {
        Name(table.name, str(constraint.name)): context.impl.render_ddl_sql_expr(constraint.sqltext)
        for table in tables.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }
