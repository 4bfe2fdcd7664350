"""Idempotency keys of calls: an effect of a request or message has the same key whenever it is repeated."""

from uuid import uuid4

from chassis.database.unit_of_work import current_key

LONGEST_KEY = 240
"""The characters that a derived key keeps of its origin: a neighbour accepts 255."""


def idempotency_key() -> str:
    """Return a key for one call that changes something.

    The first key in a handler is the id of the message, and in a route the Idempotency-Key of the request. The further keys of
    the same handler or request are derived from it, in the order of their calls. Otherwise the key is new.
    """
    origin = current_key.get()
    if origin is None:
        return str(uuid4())
    key, numbers = origin
    number = next(numbers)
    return key if number == 1 else f"{key[:LONGEST_KEY]}.{number}"
