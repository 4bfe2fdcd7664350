"""The table of the answers to requests with an idempotency key."""

from alembic import op

revision = "chassis_0002"
down_revision = "chassis_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # `key` and `request` are digests. `body` is null if the answer was too large to keep.
    op.execute("""
        CREATE TABLE chassis.idempotency_keys (
            key bytea CONSTRAINT pk_idempotency_keys PRIMARY KEY,
            request bytea NOT NULL,
            status smallint NOT NULL,
            headers text NOT NULL,
            body bytea,
            created_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("CREATE INDEX ix_idempotency_keys_created_at ON chassis.idempotency_keys (created_at)")


def downgrade() -> None:
    op.execute("DROP TABLE chassis.idempotency_keys")
