"""The statements on the table of sagas. Its columns are in database/migrations/versions/chassis_0003_sagas.py."""

START = """
    INSERT INTO chassis.sagas (id, name, key, version, params, due_at, subject, parent, traceparent, tracestate)
    VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6::interval, $7, $8, $9, $10)
    ON CONFLICT (name, key) DO NOTHING RETURNING id
"""
ID = "SELECT id FROM chassis.sagas WHERE name = $1 AND key = $2"
ANSWERED = "SELECT id FROM chassis.sagas WHERE id = ANY($1::uuid[]) OR (name = $2 AND key = $3)"
READ = "SELECT *, clock_timestamp() AS now FROM chassis.sagas WHERE id = $1"
LOCK = f"{READ} FOR UPDATE"
ADVANCE = """
    UPDATE chassis.sagas SET state = $2, position = $3, turn = turn + 1, steps = $4, answers = $5, reason = $6, deadline = $7,
        due_at = CASE WHEN $8 THEN NULL ELSE coalesce($7, clock_timestamp()) + $9::interval END,
        ended_at = CASE WHEN $8 THEN clock_timestamp() END, problem = NULL, problem_message = NULL, sweeps = 0,
        updated_at = clock_timestamp()
    WHERE id = $1
"""
WAIT = """
    UPDATE chassis.sagas SET due_at = deadline + $2::interval, problem = NULL, problem_message = NULL, sweeps = 0 WHERE id = $1
"""
# The sweep repeats the job that reads the answer, because the worker that takes the first job may not know the function.
ANSWER = """
    UPDATE chassis.sagas SET answers = $2, updated_at = clock_timestamp(),
        due_at = CASE WHEN due_at IS NOT NULL THEN least(due_at, clock_timestamp() + $3::interval) END
    WHERE id = $1
"""
PARK = """
    UPDATE chassis.sagas SET problem = $3, problem_message = $4, due_at = NULL, updated_at = clock_timestamp()
    WHERE id = $1 AND turn = $2 AND ended_at IS NULL
"""
# A person's decision begins a new turn: the job of the new turn is due, even if a job of the former turn is parked.
RESUME = """
    UPDATE chassis.sagas SET problem = NULL, problem_message = NULL, turn = turn + 1, sweeps = 0, state = $2, reason = $3, steps = $4,
        deadline = CASE WHEN $2 = 'undoing' THEN NULL ELSE deadline END,
        due_at = clock_timestamp() + $5::interval, updated_at = clock_timestamp()
    WHERE id = $1 RETURNING turn
"""
UNPARK = "DELETE FROM chassis.parked WHERE direction = 'incoming' AND message_id = $1"
# The pause until a saga's next sweep grows each time, so that a worker which is far behind gets no second queue of the same jobs.
SWEEP = """
    UPDATE chassis.sagas SET sweeps = sweeps + 1,
        due_at = clock_timestamp() + least($1::interval * 2 ^ least(sweeps + 1, 20), greatest($1, interval '1 hour'))
    WHERE id IN (SELECT id FROM chassis.sagas WHERE due_at < $3 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING id, turn, subject, parent, traceparent
"""
FORGET = """
    DELETE FROM chassis.sagas WHERE id IN (SELECT id FROM chassis.sagas WHERE ended_at < now() - $1::interval LIMIT $2)
"""
# A saga is idle after three sweeps: by then, an attempt that was under way has ended. The name of a step may hold an id, and each
# name is a series of a metric: so all steps of a saga except its 50 most frequent steps are counted together.
MEASURE = """
    SELECT name, state, CASE WHEN rank > 50 THEN 'other' ELSE position END AS position, sum(sagas)::bigint AS sagas,
        sum(idle)::bigint AS idle, max(oldest_seconds) AS oldest_seconds
    FROM (
        SELECT name, CASE WHEN problem IS NULL THEN state ELSE 'parked' END AS state, position, count(*) AS sagas,
            count(*) FILTER (WHERE sweeps > 2) AS idle, extract(epoch FROM now() - min(started_at))::float8 AS oldest_seconds,
            row_number() OVER (PARTITION BY name ORDER BY count(*) DESC, position) AS rank
        FROM chassis.sagas WHERE ended_at IS NULL GROUP BY 1, 2, 3
    ) AS measured GROUP BY 1, 2, 3
"""
