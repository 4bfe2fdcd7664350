"""Reservations in messages. Within a version of a contract, only optional fields may be added."""

from chassis import fields
from chassis.messages import Contract, Event

from inventory.domain.reservations import StockMissing, StockReserved


class StockReservedV1(Contract):
    order_id: fields.Identifier
    customer_id: fields.Identifier
    occurred_at: fields.Timestamp


class StockMissingV1(Contract):
    order_id: fields.Identifier
    customer_id: fields.Identifier
    skus: list[str]
    occurred_at: fields.Timestamp


OUTGOING = [
    Event(StockReserved, StockReservedV1, aggregate="reservation", key="order_id"),
    Event(StockMissing, StockMissingV1, aggregate="reservation", key="order_id"),
]
