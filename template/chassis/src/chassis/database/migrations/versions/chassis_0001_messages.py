"""The tables of messages: outbox, inbox, messages in progress, leaders, parked, schedules."""

from alembic import op

revision = "chassis_0001"
down_revision = None
branch_labels = ("chassis",)
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS chassis")
    # Debezium's outbox event router expects these names of columns. Rows live for a short time, so a number of dead rows
    # starts the vacuum, not their share of the table. `payload` is JSON in a text column: the relay asks for lengths
    # first, and PostgreSQL knows the length of a text without reading it.
    op.execute("""
        CREATE TABLE chassis.outbox (
            seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_outbox PRIMARY KEY,
            id uuid NOT NULL,
            kind text NOT NULL CONSTRAINT ck_outbox_kind CHECK (kind IN ('event', 'job')),
            aggregatetype text NOT NULL,
            aggregateid text NOT NULL,
            type text NOT NULL,
            payload text NOT NULL,
            content_type text NOT NULL DEFAULT 'application/json',
            traceparent text,
            tracestate text,
            republished text,
            subject text,
            not_before timestamptz,
            waits_for text,
            created_at timestamptz NOT NULL DEFAULT now()
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)
    """)
    # Rows that are due at once and rows that are due later have separate indexes, so the relay reads each kind without
    # passing over the other. `waits_for` is the failed destination that delays a row. A delayed row is in neither index.
    op.execute("CREATE INDEX ix_outbox_at_once ON chassis.outbox (seq) WHERE not_before IS NULL AND waits_for IS NULL")
    op.execute("""
        CREATE INDEX ix_outbox_later ON chassis.outbox (not_before) WHERE not_before IS NOT NULL AND waits_for IS NULL
    """)
    op.execute("CREATE INDEX ix_outbox_waits_for ON chassis.outbox (waits_for, seq) WHERE waits_for IS NOT NULL")
    op.execute("""
        CREATE INDEX ix_outbox_waiting_keys ON chassis.outbox (aggregatetype, aggregateid, seq)
        WHERE waits_for IS NOT NULL AND kind = 'event'
    """)
    op.execute("""
        CREATE FUNCTION chassis.outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('chassis_outbox', '');
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER outbox_notify AFTER INSERT ON chassis.outbox
        FOR EACH STATEMENT EXECUTE FUNCTION chassis.outbox_notify()
    """)
    op.execute("""
        CREATE TABLE chassis.inbox (
            message_id text NOT NULL,
            name text NOT NULL,
            received_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_inbox PRIMARY KEY (message_id, name)
        )
    """)
    op.execute("CREATE INDEX ix_inbox_received_at ON chassis.inbox USING brin (received_at)")
    op.execute("""
        CREATE TABLE chassis.attempts (
            lane uuid CONSTRAINT pk_attempts PRIMARY KEY,
            message_ids text[] NOT NULL,
            names text[] NOT NULL,
            started_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    # A row means that a replica leads, or that it stopped without resigning. In the second case its successor waits.
    op.execute("""
        CREATE TABLE chassis.leaders (
            lock bigint CONSTRAINT pk_leaders PRIMARY KEY,
            started_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("""
        CREATE TABLE chassis.parked (
            id uuid CONSTRAINT pk_parked PRIMARY KEY,
            direction text NOT NULL CONSTRAINT ck_parked_direction CHECK (direction IN ('incoming', 'outgoing')),
            kind text NOT NULL CONSTRAINT ck_parked_kind CHECK (kind IN ('event', 'job')),
            name text NOT NULL,
            message_id text NOT NULL,
            key text NOT NULL,
            body bytea NOT NULL,
            headers json NOT NULL,
            reason text NOT NULL,
            attempts integer NOT NULL,
            parked_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    # A job that the worker enqueues at fixed times. `rule` is its schedule: two versions may have two.
    op.execute("""
        CREATE TABLE chassis.schedules (
            name text NOT NULL,
            rule text NOT NULL,
            next_at timestamptz NOT NULL,
            CONSTRAINT pk_schedules PRIMARY KEY (name, rule)
        )
    """)


def downgrade() -> None:
    op.execute("DROP SCHEMA chassis CASCADE")
