"""Charges over HTTP."""

from chassis.http import new_id, transaction, utc_now
from chassis.identity import scopes
from chassis.problems import problems
from fastapi import APIRouter

from payments.api.payments import NewPayment, PaymentDetails
from payments.domain.charges import PaymentRefused
from payments.domain.payments import Payment
from payments.usecases import charges as usecases
from payments.usecases.payments import CreatePayment

router = APIRouter(prefix="/v1/charges", tags=["charges"])


@router.post("", status_code=201, response_model=PaymentDetails, responses=problems(PaymentRefused))
@scopes("charges:write")
async def create_charge(body: NewPayment) -> Payment:
    """Charge a customer's card."""
    command = CreatePayment(payment_id=new_id(), **dict(body))
    async with transaction() as uow:
        return await usecases.charge(command, uow, now=utc_now())
