"""The activities that are committed, so that a repeated one has no second effect."""

import sqlalchemy as sa
from chassis.database import Statement, UnitOfWork
from sqlalchemy.dialects.postgresql import insert

from orders.persistence.schema import metadata

activities = sa.Table(
    "activities",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("committed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
)
_RECORD = Statement(insert(activities).on_conflict_do_nothing().returning(activities.c.id), columns=["id"])


async def record_activity(uow: UnitOfWork, activity_id: str) -> bool:
    """Return whether the activity is new. Waits for another attempt that runs at this moment."""
    return await _RECORD.one(uow.connection, id=activity_id) is not None
