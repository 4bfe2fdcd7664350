"""The names of messages and queues, which follow from the service, the class of the contract, and the queue of a job."""

import re

from chassis.messages.lines import Contract

NAME = re.compile(r"[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*\.v[1-9][0-9]*")
QUEUE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
DEFAULT_QUEUE = "default"
_CLASS = re.compile(r"(?P<words>[A-Z][A-Za-z0-9]*?)V(?P<version>[1-9][0-9]*)")


def name_of(service: str, contract: type[Contract]) -> str:
    """Name a message: `billing.invoice-issued.v1` for the service billing and a contract named InvoiceIssuedV1."""
    found = _CLASS.fullmatch(contract.__name__)
    if found is None:
        raise ValueError(
            f"{contract.__name__} names no version: end the name of a contract with its version, as in InvoiceIssuedV1"
        )
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", found["words"]).lower()
    return f"{service}.{words}.v{found['version']}"


def queue_owner(service: str, queue: str) -> str:
    """Return the first part of the names of the jobs in a queue. Brokers name streams, groups and queues after it.

    No name of a service has two hyphens in a row, so no other service has this name.
    """
    return f"{service}--{queue}" if queue else service
