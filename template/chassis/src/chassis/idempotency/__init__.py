"""Idempotency keys: a POST that is sent again with its key has no second effect, and gets the first answer again."""

from chassis.idempotency.keys import IdempotencyKeys

__all__ = ["IdempotencyKeys"]
