"""One route that takes the next step of a counter and publishes an event."""

import secrets
from dataclasses import dataclass

import sqlalchemy as sa
from chassis.application import application
from chassis.database import metadata_for
from chassis.http import transaction
from chassis.messages import Contract, Event, Messages
from chassis.service import Service
from chassis.settings import Settings
from fastapi import APIRouter, FastAPI

from tests.service.chaos import counter

metadata = metadata_for("counter")
counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("steps", sa.Integer, nullable=False),
)

router = APIRouter(prefix="/v1/counters")

STEP = """
    INSERT INTO counter.counters (name, steps) VALUES ($1, 1)
    ON CONFLICT (name) DO UPDATE SET steps = counters.steps + 1
    RETURNING steps
"""


@dataclass(frozen=True)
class Stepped:
    name: str
    step: int
    ballast: str
    """Random text, which does not compress, because small events would hardly fill a disk."""


class SteppedV1(Contract):
    name: str
    step: int
    ballast: str


@router.post("/{name}/steps", status_code=201)
async def step(name: str) -> int:
    """The row stays locked until the commit, so events of a counter are stored in the order of their steps."""
    async with transaction() as uow:
        taken = await uow.connection.fetchval(STEP, name)
        await uow.publish(Stepped(name, taken, secrets.token_hex(1000)))
    return taken


SERVICE = Service(
    name="counter",
    domain="tests",
    description="Counts",
    package=counter,
    tables=metadata,
    routers=[router],
    messages=Messages("counter", outgoing=(Event(Stepped, SteppedV1, aggregate="counter", key="name"),)),
)


def create_app(settings: Settings | None = None) -> FastAPI:
    return application(SERVICE, settings or SERVICE.settings())
