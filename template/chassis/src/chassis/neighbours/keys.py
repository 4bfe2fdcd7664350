"""Idempotency keys of outgoing calls: when a request or a message is processed again, its calls get the same keys again."""

import json
from uuid import NAMESPACE_URL, uuid4, uuid5

from chassis.database.unit_of_work import current_caller, current_key


def idempotency_key() -> str:
    """Return a key for one call that changes something, as a UUID.

    In a handler of a message, and in a route whose request has an Idempotency-Key, a repetition of the message or the request
    gets the same keys again, in the same order. Everywhere else, each key is new.
    """
    origin = current_key.get()
    if origin is None:
        return str(uuid4())
    name, numbers = origin
    # The neighbour sees this service as the caller of all calls, so two callers with one key need two keys there.
    caller = current_caller.get()
    whose = [caller.issuer, caller.subject, caller.client] if caller else []
    return str(uuid5(NAMESPACE_URL, json.dumps([*whose, name, next(numbers)])))
