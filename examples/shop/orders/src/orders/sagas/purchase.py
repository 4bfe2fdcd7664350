"""A purchase spans orders and payments: the card is charged, and then the order is placed."""

from datetime import timedelta

from chassis.sagas import Abandon, Run, saga

from orders.domain.orders import OrderNotFound
from orders.usecases.purchases import (
    PaymentCharged,
    PaymentRefused,
    Purchase,
    cancel_purchase,
    place_purchase,
    request_payment,
)

PAID_WITHIN = timedelta(minutes=5)


@saga("purchase")
async def purchase(run: Run, command: Purchase) -> None:
    """Have the order paid, and place it; or cancel it if the card is refused, or nobody answers."""
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
