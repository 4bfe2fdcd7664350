"""Idempotency keys of calls: an effect of a request or message has the same key whenever it is repeated."""

import hashlib
import json
from uuid import uuid4

from chassis.database.unit_of_work import current_caller, current_key

LONGEST_KEY = 240
"""The characters that a derived key keeps of its origin: a neighbour accepts 255."""


def idempotency_key() -> str:
    """Return a key for one call that changes something.

    The first key in a handler is the id of the message. In a route it is the Idempotency-Key of the request, or a digest of that
    key and its caller, if the caller is known. The further keys of the same handler or request are derived from the first, in the
    order of their calls. Otherwise the key is new.
    """
    origin = current_key.get()
    if origin is None:
        return str(uuid4())
    key, numbers = origin
    if (caller := current_caller.get()) is not None:
        # Two callers may choose the same key, and the neighbour knows only this service.
        names = [caller.issuer, caller.subject, caller.client, key]
        key = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    number = next(numbers)
    return key if number == 1 else f"{key[:LONGEST_KEY]}.{number}"
