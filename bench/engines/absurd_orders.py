"""The orders of bench/sagas.py on Absurd: `python -m bench.engines.absurd_orders shop URL` runs a worker.

A step commits its effect with its checkpoint, after it has extended its claim, so that no second worker can commit the step too. The bank
is a queue of the same database: there is no broker between the two.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from absurd_sdk import AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL

AT_ONCE = 4  # the default of JOBS_AT_ONCE of a chassis worker
LONGEST_WAIT_SECONDS = 300
ENDED = "SELECT count(*) FROM absurd.t_shop WHERE state = 'completed'"
CLEAR = "TRUNCATE absurd.t_shop, absurd.r_shop, absurd.c_shop, absurd.e_shop, absurd.w_shop, absurd.t_bank, absurd.r_bank, absurd.c_bank"
NOTE = "INSERT INTO done (number, what) VALUES (%s, %s)"
BOOK = "INSERT INTO bookings (number, kind) VALUES (%s, 'charge')"
SPAWN = "SELECT absurd.spawn_task('bank', 'charge', %s, '{}')"
ANSWER = "SELECT absurd.emit_event('shop', %s, 'true')"

Effect = tuple[str, tuple[Any, ...]]


def install(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(BUNDLED_SCHEMA_SQL.encode())
        connection.execute("SELECT absurd.create_queue('shop'), absurd.create_queue('bank')")


def fill(url: str, orders: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT absurd.spawn_task('shop', 'place-order', jsonb_build_object('number', n), '{}') FROM generate_series(1, %s) AS n",
            [orders],
        )


async def work(queue: str, url: str) -> None:
    await asyncio.gather(*[_loop(queue, url) for _ in range(AT_ONCE)])


async def _loop(queue: str, url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        app = AsyncAbsurd(connection, queue_name=queue)

        async def step(context: Any, name: str, *effects: Effect) -> None:
            async with connection.transaction():
                await context.heartbeat()
                handle = await context.begin_step(name)
                if not handle.done:
                    for statement, arguments in effects:
                        await connection.execute(statement, arguments)
                    await context.complete_step(handle, None)

        _register(app, step)
        await app.start_worker(batch_size=AT_ONCE, poll_interval=0.05)


def _register(app: AsyncAbsurd, step: Callable[..., Awaitable[None]]) -> None:
    @app.register_task("place-order", queue="shop")
    async def place_order(params: Any, context: Any) -> None:
        number = params["number"]
        await step(context, "reserve", (NOTE, (number, "reserve")))
        await step(context, "request", (NOTE, (number, "request")), (SPAWN, (json.dumps(params),)))
        await context.await_event(f"payment {number}", timeout=LONGEST_WAIT_SECONDS)
        await step(context, "confirm", (NOTE, (number, "confirm")))

    @app.register_task("charge", queue="bank")
    async def charge(params: Any, context: Any) -> None:
        number = params["number"]
        await step(context, "charge", (BOOK, (number,)), (ANSWER, (f"payment {number}",)))


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
