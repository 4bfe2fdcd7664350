"""The messages that a service sends and handles: their contracts, and the lines of OUTGOING and INCOMING."""

from chassis.messages.lines import Contract, CurrentState, Event, Handler, Job, OnEvent, OnJob, StateReader
from chassis.messages.names import DEFAULT_QUEUE, NAME, name_of, queue_owner
from chassis.messages.table import NO_MESSAGES, Messages, Receiver, Route, Unknown, messages_in

__all__ = [
    "DEFAULT_QUEUE",
    "NAME",
    "NO_MESSAGES",
    "Contract",
    "CurrentState",
    "Event",
    "Handler",
    "Job",
    "Messages",
    "OnEvent",
    "OnJob",
    "Receiver",
    "Route",
    "StateReader",
    "Unknown",
    "messages_in",
    "name_of",
    "queue_owner",
]
