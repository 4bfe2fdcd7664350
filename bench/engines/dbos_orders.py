"""The orders of bench/sagas.py on DBOS: `python -m bench.engines.dbos_orders shop URL` runs a worker.

A step is a transaction of a datasource, so that its effect is committed with its record. The bank is a queue of the same system
database: there is no broker between the two.
"""

import asyncio
import os
import sys
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSClient, run_dbos_database_migrations

AT_ONCE = 50
"""How many workflows a worker runs at the same time: a workflow that waits stays in memory, and counts."""
LONGEST_WAIT_SECONDS = 300
VERSION = "1"
ENDED = "SELECT count(*) FROM dbos.workflow_status WHERE name = 'place_order' AND status = 'SUCCESS'"
CLEAR = "TRUNCATE dbos.workflow_status, dbos.datasource_outputs CASCADE"
NOTE = sa.text("INSERT INTO done (number, what) VALUES (:number, :what)")
BOOK = sa.text("INSERT INTO bookings (number, kind) VALUES (:number, 'charge')")


def install(url: str) -> None:
    run_dbos_database_migrations(url)
    asyncio.run(AsyncSQLAlchemyDatasource.migrate(url))


def fill(url: str, orders: int) -> None:
    client = DBOSClient(system_database_url=url)
    for number in range(1, orders + 1):
        client.enqueue({"queue_name": "shop", "workflow_name": "place_order", "app_version": VERSION}, number)
    client.destroy()


async def work(queue: str, url: str) -> None:
    DBOS(
        config={
            "name": "orders",
            "system_database_url": url,
            "application_version": VERSION,
            "executor_id": f"{queue}-{os.getpid()}",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    engine = {"pool_size": 6, "max_overflow": 0}
    _register(await AsyncSQLAlchemyDatasource.create(url, engine, run_migrations=False))
    DBOS.listen_queues([queue])
    DBOS.launch()
    for name in ("shop", "bank"):
        await DBOS.register_queue_async(name, worker_concurrency=AT_ONCE, polling_interval_sec=0.1)
    await asyncio.Event().wait()


def _register(database: Any) -> None:
    @database.transaction(isolation_level="READ COMMITTED")
    async def note(number: int, what: str) -> None:
        await database.sql_session().execute(NOTE, {"number": number, "what": what})

    @database.transaction(isolation_level="READ COMMITTED")
    async def book(number: int) -> None:
        await database.sql_session().execute(BOOK, {"number": number})

    @DBOS.workflow(name="charge")
    async def charge(number: int, order: str) -> None:
        await book(number)
        await DBOS.send_async(order, True, topic="payment")

    @DBOS.workflow(name="place_order")
    async def place_order(number: int) -> None:
        await note(number, "reserve")
        await note(number, "request")
        await DBOS.enqueue_workflow_async("bank", charge, number, DBOS.workflow_id)
        if await DBOS.recv_async("payment", timeout_seconds=LONGEST_WAIT_SECONDS) is None:
            raise TimeoutError(f"order {number} has no answer")
        await note(number, "confirm")


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
