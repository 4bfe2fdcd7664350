"""One handler that appends to a log. The table accepts a second copy of an entry."""

import sqlalchemy as sa
from chassis.application import application
from chassis.database import Statement, UnitOfWork, metadata_for
from chassis.messages import Messages, OnEvent
from chassis.service import Service
from chassis.settings import Settings
from fastapi import FastAPI

from tests.service.chaos import journal
from tests.service.chaos.counter.main import SteppedV1

metadata = metadata_for("journal")
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("name", sa.String(40), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("written_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
)

INSERT = Statement(sa.insert(entries), columns=["name", "step"])


async def on_stepped(event: SteppedV1, uow: UnitOfWork) -> None:
    await INSERT.run(uow.connection, name=event.name, step=event.step)


SERVICE = Service(
    name="journal",
    domain="tests",
    description="Writes down what it hears",
    package=journal,
    tables=metadata,
    routers=[],
    messages=Messages("journal", incoming=(OnEvent("counter.stepped.v1", SteppedV1, on_stepped),)),
)


def create_app(settings: Settings | None = None) -> FastAPI:
    return application(SERVICE, settings or SERVICE.settings())
