"""The table of sagas, and the column of the outbox with the sagas that a message belongs to."""

from alembic import op

revision = "chassis_0003"
down_revision = "chassis_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE chassis.outbox ADD COLUMN saga text")
    # `steps` are the results of the steps, `answers` the answers that no step has read yet, and `parent` the sagas that the
    # start belongs to. `turn` counts the commits. `due_at` is when the sweep enqueues a job, and `problem` why the saga waits
    # for a person. The texts are json and not jsonb, because jsonb stores no NUL character.
    op.execute("""
        CREATE TABLE chassis.sagas (
            id uuid CONSTRAINT pk_sagas PRIMARY KEY,
            name text NOT NULL,
            key text NOT NULL,
            version integer NOT NULL,
            state text NOT NULL DEFAULT 'running'
                CONSTRAINT ck_sagas_state CHECK (state IN ('running', 'waiting', 'undoing', 'completed', 'abandoned')),
            position text NOT NULL DEFAULT '',
            turn integer NOT NULL DEFAULT 0,
            params json NOT NULL,
            steps json NOT NULL DEFAULT '[]',
            answers json NOT NULL DEFAULT '[]',
            reason text,
            problem text,
            problem_message text,
            deadline timestamptz,
            due_at timestamptz,
            sweeps integer NOT NULL DEFAULT 0,
            subject text,
            parent text,
            traceparent text,
            tracestate text,
            started_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            ended_at timestamptz,
            CONSTRAINT uq_sagas_name_key UNIQUE (name, key)
        )
    """)
    # The metrics need this index: they count the active sagas every 15 seconds, and most rows are sagas that have ended.
    op.execute("CREATE INDEX ix_sagas_active ON chassis.sagas (name) WHERE ended_at IS NULL")
    op.execute("CREATE INDEX ix_sagas_due_at ON chassis.sagas (due_at) WHERE due_at IS NOT NULL")
    op.execute("CREATE INDEX ix_sagas_ended_at ON chassis.sagas (ended_at) WHERE ended_at IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP TABLE chassis.sagas")
    op.execute("ALTER TABLE chassis.outbox DROP COLUMN saga")
