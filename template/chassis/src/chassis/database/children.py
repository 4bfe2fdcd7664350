"""Read rows together with the rows of a child table, such as orders with their lines."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

from chassis.database.statements import Row


def select_with_rows(parent: sa.Table, *children: sa.Table) -> sa.Select:
    """Select each row of `parent` together with its rows of each child table, in one statement, so that all rows are of the same moment.

    A child table has one foreign key to `parent`, and a primary key that decides the order. `rows_of` reads its rows.
    """
    source: sa.FromClause = parent
    columns: list[Any] = list(parent.c)
    for child in children:
        [key] = [key for key in child.foreign_keys if key.column.table is parent]
        order = [child.c[column.name] for column in child.primary_key]
        arrays = [
            sa.func.array_agg(aggregate_order_by(column, *order)).label(f"{child.name}.{column.name}")
            for column in child.c
        ]
        own = sa.select(*arrays).where(key.parent == key.column).correlate(parent).lateral(f"{child.name}_rows")
        source = source.join(own, sa.true())
        columns += own.c
    return sa.select(*columns).select_from(source)


def rows_of(row: Row, child: sa.Table) -> list[dict[str, Any]]:
    """Return the rows of a child table that belong to this row of `select_with_rows`."""
    names = [column.name for column in child.c]
    columns = [row[f"{child.name}.{name}"] or () for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
