"""A purchase spans orders and payments: the card is charged, and then the order is placed."""

from datetime import timedelta

from chassis.sagas import Abandon, Run, saga

from orders.domain.orders import OrderNotFound
from orders.usecases.purchase_workflows import hand_over
from orders.usecases.purchases import (
    PaymentCharged,
    PaymentRefused,
    Purchase,
    cancel_purchase,
    place_purchase,
    request_payment,
)

PAID_WITHIN = timedelta(minutes=5)


@saga("purchase", version=2)
async def purchase(run: Run, command: Purchase) -> None:
    """Hand the purchase over to Temporal. A purchase of version 1 goes on here, as workflows/purchase.py does."""
    if run.version >= 2:
        await run.step(hand_over, command)
        return
    await run.step(request_payment, command, undo=cancel_purchase)
    answer = await run.reply(PaymentCharged | PaymentRefused, within=PAID_WITHIN)
    if isinstance(answer, PaymentRefused):
        raise Abandon(answer.reason)
    if not isinstance(answer, PaymentCharged):
        raise Abandon("payments did not answer in time")
    try:
        await run.step(place_purchase, command)
    except OrderNotFound:
        raise Abandon("the order was deleted") from None
