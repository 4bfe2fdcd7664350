"""Deliver notifications. The caller owns the transaction: no use case commits."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.database import UnitOfWork

from notifications.domain.notifications import NotificationAlreadySent
from notifications.usecases.notifications import (
    CreateNotification,
    SendNotification,
    create_notification,
    send_notification,
)


@dataclass(frozen=True, kw_only=True)
class DeliverNotification:
    notification_id: UUID


async def notify(command: CreateNotification, uow: UnitOfWork, *, now: datetime) -> None:
    """Store a notification, and enqueue the job that delivers it."""
    notification = await create_notification(command, uow, now=now)
    await uow.enqueue(DeliverNotification(notification_id=notification.id))


async def deliver(command: DeliverNotification, uow: UnitOfWork, *, now: datetime) -> None:
    """Send a notification, once. Raises NotificationNotFound."""
    with suppress(NotificationAlreadySent):  # somebody has sent it by the API
        await send_notification(
            SendNotification(notification_id=command.notification_id, expected_version=None), uow, now=now
        )
