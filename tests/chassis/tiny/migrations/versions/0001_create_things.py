"""create things"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "things",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("email", sa.String(length=80), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_things"),
        sa.UniqueConstraint("name", name="uq_things_name", deferrable=True, initially="DEFERRED"),
        sa.UniqueConstraint("email", name="uq_things_email"),
        schema="tiny",
    )


def downgrade() -> None:
    op.drop_table("things", schema="tiny")
