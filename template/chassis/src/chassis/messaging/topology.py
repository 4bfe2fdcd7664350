"""The names of all messages of a service, for the broker."""

from collections.abc import Iterable
from itertools import chain

from chassis.brokers import Kind, Topology
from chassis.messages import Messages, Receiver, Route


def topology_of(messages: Messages) -> Topology:
    """Return the names of the messages that the service publishes, sends, listens to and processes."""
    sent, taken = list(chain(*messages.routes.values())), messages.receivers.values()
    return Topology(
        service=messages.service,
        published_events=_names(sent, Kind.EVENT),
        sent_jobs=_names(sent, Kind.JOB),
        awaited_events=_names(taken, Kind.EVENT),
        accepted_jobs=_names(taken, Kind.JOB),
    )


def _names(lines: Iterable[Route | Receiver], kind: Kind) -> frozenset[str]:
    return frozenset(line.name for line in lines if line.kind == kind)
