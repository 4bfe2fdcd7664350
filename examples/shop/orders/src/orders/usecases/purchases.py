"""A purchase: an order that is placed when it is paid for. The steps of the saga in sagas/purchase.py, its answers, and its start."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.database import UnitOfWork
from chassis.money import Money

from orders.domain.orders import Order, OrderAlreadyPlaced, OrderNotFound, OrderStatus
from orders.persistence.orders import OrderRepository
from orders.usecases.orders import CreateOrder, PlaceOrder, create_order, place_order


@dataclass(frozen=True, kw_only=True)
class Purchase:
    order_id: UUID
    customer_id: UUID
    amount: Money


@dataclass(frozen=True, kw_only=True)
class ChargeCard(Purchase):
    """The job that asks payments to charge the card. The answer is PaymentCharged or PaymentRefused."""


@dataclass(frozen=True, kw_only=True)
class RefundCard(Purchase):
    """The job that asks payments to give the money back, or to refuse a charge that has not happened yet."""


@dataclass(frozen=True, kw_only=True)
class PaymentCharged:
    payment_id: UUID


@dataclass(frozen=True, kw_only=True)
class PaymentRefused:
    reason: str


async def start_purchase(command: CreateOrder, uow: UnitOfWork, *, now: datetime) -> Order:
    """Make a draft, and start the saga that has it paid and places it."""
    order = await create_order(command, uow, now=now)
    purchase = Purchase(order_id=order.id, customer_id=order.customer_id, amount=order.total)
    await uow.start("purchase", purchase, key=str(order.id))
    return order


async def request_payment(purchase: Purchase, uow: UnitOfWork) -> None:
    """Ask payments to charge the card."""
    await uow.enqueue(ChargeCard(**vars(purchase)))


async def cancel_purchase(purchase: Purchase, uow: UnitOfWork) -> None:
    """Delete the draft, and give the money back, also if nobody knows whether it was charged.

    Raises OrderAlreadyPlaced if somebody has placed the order by the API: then a person decides.
    """
    repository = OrderRepository(uow)
    with suppress(OrderNotFound):  # somebody has deleted it by the API
        order = await repository.get(purchase.order_id, expected_version=None)
        if order.status is OrderStatus.PLACED:
            raise OrderAlreadyPlaced(f"order {order.id} is placed and not paid: charge it by hand, or delete it")
        await repository.remove(order)
    await uow.enqueue(RefundCard(**vars(purchase)))


async def place_purchase(purchase: Purchase, uow: UnitOfWork, *, now: datetime) -> None:
    """Place the order that is paid for. Raises OrderNotFound if somebody has deleted it by the API."""
    with suppress(OrderAlreadyPlaced):  # somebody has placed it by the API
        await place_order(PlaceOrder(order_id=purchase.order_id, expected_version=None), uow, now=now)
