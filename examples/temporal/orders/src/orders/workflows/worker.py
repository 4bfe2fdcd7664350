"""The worker of Temporal: `python -m orders temporal`."""

import asyncio
import signal
from datetime import timedelta

from chassis.database import Database
from temporalio.client import Client
from temporalio.worker import Worker

from orders.workflows.activities import PurchaseActivities
from orders.workflows.client import temporal
from orders.workflows.purchase import PurchaseWorkflow

TASK_QUEUE = "orders"


def worker(client: Client, database: Database) -> Worker:
    steps = PurchaseActivities(database)
    return Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[PurchaseWorkflow],
        activities=[steps.request_payment, steps.place_purchase, steps.cancel_purchase],
        max_concurrent_activities=8,  # fewer than DATABASE_POOL_SIZE
        graceful_shutdown_timeout=timedelta(seconds=20),
    )


async def run_worker(database: Database) -> None:
    """Run workflows and their steps until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with worker(await temporal(), database):
        await stop.wait()
