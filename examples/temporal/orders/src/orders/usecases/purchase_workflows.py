"""The start of a purchase's workflow, in the commit of the step that hands it over."""

from dataclasses import dataclass

from chassis.database import UnitOfWork

from orders.usecases.purchases import Purchase


@dataclass(frozen=True, kw_only=True)
class RunPurchase(Purchase):
    """The job that starts the workflow."""


async def hand_over(purchase: Purchase, uow: UnitOfWork) -> None:
    """Have Temporal run the purchase."""
    await uow.enqueue(RunPurchase(**vars(purchase)))
