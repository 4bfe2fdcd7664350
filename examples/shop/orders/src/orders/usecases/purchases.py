"""A purchase: an order that is paid for before it is placed. The caller owns the transaction: no use case commits."""

from datetime import datetime
from uuid import UUID

import httpx2
from chassis.database import UnitOfWork
from chassis.errors import Conflict
from chassis.money import Money

from orders.domain.orders import Order
from orders.neighbours.payments import Money as Amount
from orders.neighbours.payments import NewPayment, PaymentsConflict, create_charge
from orders.usecases.orders import CreateOrder, PlaceOrder, create_order, place_order


class PaymentRefused(Conflict):
    code = "payment_refused"


async def pay(payments: httpx2.AsyncClient, customer_id: UUID, total: Money) -> UUID:
    """Charge the customer, before a transaction begins. Return the payment's id.

    Raises PaymentRefused, or NeighbourUnavailable if the payments service does not answer.
    """
    amount = Amount(amount=total.amount, currency=total.currency)
    try:
        payment = await create_charge(payments, NewPayment(customer_id=customer_id, amount=amount))
    except PaymentsConflict as error:
        if error.code != "payment_refused":
            raise
        raise PaymentRefused("the payment was refused: choose another card, or order less") from error
    return payment.id


async def purchase(command: CreateOrder, uow: UnitOfWork, *, now: datetime) -> Order:
    """Make an order that is paid for, and announce it."""
    order = await create_order(command, uow, now=now)
    return await place_order(PlaceOrder(order_id=order.id, expected_version=None), uow, now=now)
