"""Create the tables of records."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, columns in {
        "runs": "name varchar(40) NOT NULL, due_at timestamptz NOT NULL",
        "results": "number integer NOT NULL",
        "arrivals": "gauge_id uuid NOT NULL, version integer NOT NULL, again boolean NOT NULL",
    }.items():
        op.execute(f"CREATE TABLE clerk.{name} (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns})")
    op.create_table("errands", sa.Column("number", sa.Integer(), primary_key=True), schema="clerk")
    op.create_table(
        "gauges",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("version", sa.Integer(), nullable=False),
        schema="clerk",
    )


def downgrade() -> None:
    for name in ("runs", "results", "arrivals", "errands", "gauges"):
        op.drop_table(name, schema="clerk")
