"""The job that delivers a notification. Within a version of a contract, only optional fields may be added."""

from datetime import UTC, datetime

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, Job, OnJob

from notifications.usecases.deliveries import DeliverNotification, deliver


class DeliverNotificationV1(Contract):
    notification_id: fields.Identifier


async def on_deliver_notification(job: DeliverNotificationV1, uow: UnitOfWork) -> None:
    await deliver(DeliverNotification(notification_id=job.notification_id), uow, now=datetime.now(UTC))


OUTGOING = [
    Job(DeliverNotification, DeliverNotificationV1),
]
INCOMING = [
    OnJob(DeliverNotificationV1, on_deliver_notification),
]
