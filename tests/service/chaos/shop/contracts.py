"""The messages between shop and its bank. `number` is the number of the order."""

from chassis.messages import Contract


class PaymentRequestedV1(Contract):
    number: int


class RemindedV1(Contract):
    number: int


class RefundRequestedV1(Contract):
    number: int


class CardChargedV1(Contract):
    number: int


class CardRefusedV1(Contract):
    number: int
