"""A purchase as a workflow: the card is charged, and then the order is placed."""

from asyncio import CancelledError
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from orders.sagas.purchase import PAID_WITHIN
    from orders.usecases.purchases import PaymentCharged, PaymentRefused, Purchase
    from orders.workflows.activities import PurchaseActivities

STEP = workflow.ActivityConfig(
    start_to_close_timeout=timedelta(seconds=30),
    cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
)
PLACE = workflow.ActivityConfig(**STEP, retry_policy=RetryPolicy(non_retryable_error_types=["OrderNotFound"]))


@workflow.defn
class PurchaseWorkflow:
    def __init__(self) -> None:
        self._answer: PaymentCharged | PaymentRefused | None = None

    @workflow.signal
    def payment_charged(self, answer: PaymentCharged) -> None:
        self._answer = self._answer or answer

    @workflow.signal
    def payment_refused(self, answer: PaymentRefused) -> None:
        self._answer = self._answer or answer

    @workflow.run
    async def run(self, purchase: Purchase) -> str | None:
        """Have the order paid, and place it. Or cancel it, and return the reason."""
        try:
            reason = await self._pay_and_place(purchase)
        except (ActivityError, CancelledError) as error:
            if not is_cancelled_exception(error):
                raise
            reason = "a person has cancelled the workflow"
        if reason:
            await workflow.execute_activity_method(PurchaseActivities.cancel_purchase, purchase, **STEP)
        return reason

    async def _pay_and_place(self, purchase: Purchase) -> str | None:
        await workflow.execute_activity_method(PurchaseActivities.request_payment, purchase, **STEP)
        try:
            await workflow.wait_condition(lambda: self._answer is not None, timeout=PAID_WITHIN)
        except TimeoutError:
            return "payments did not answer in time"
        if isinstance(self._answer, PaymentRefused):
            return self._answer.reason
        try:
            await workflow.execute_activity_method(PurchaseActivities.place_purchase, purchase, **PLACE)
        except ActivityError as error:
            if isinstance(error.cause, ApplicationError) and error.cause.type == "OrderNotFound":
                return "the order was deleted"
            raise
        return None
