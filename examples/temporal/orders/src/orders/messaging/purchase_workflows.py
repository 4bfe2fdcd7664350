"""The job that starts the workflow of a purchase."""

from contextlib import suppress

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, Job, OnJob
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from orders.usecases.purchase_workflows import RunPurchase
from orders.usecases.purchases import Purchase
from orders.workflows.client import temporal
from orders.workflows.purchase import PurchaseWorkflow
from orders.workflows.worker import TASK_QUEUE


class RunPurchaseV1(Contract):
    order_id: fields.Identifier
    customer_id: fields.Identifier
    amount: fields.MoneyField


async def on_run_purchase(job: RunPurchaseV1, uow: UnitOfWork) -> None:
    client = await temporal()
    with suppress(WorkflowAlreadyStartedError):  # an attempt whose commit failed may have started it
        await client.start_workflow(
            PurchaseWorkflow.run,
            Purchase(**dict(job)),
            id=str(job.order_id),
            task_queue=TASK_QUEUE,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )


OUTGOING = [
    Job(RunPurchase, RunPurchaseV1),
]
INCOMING = [
    OnJob(RunPurchaseV1, on_run_purchase),
]
