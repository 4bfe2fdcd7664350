"""Read what a caller hands on: the time that the caller has left, and the key of its request."""

import re
from itertools import count

from starlette.types import ASGIApp, Receive, Scope, Send

from chassis import call_headers, problems
from chassis.database.unit_of_work import current_key
from chassis.web import limits

TIMEOUT = call_headers.in_scope(call_headers.REQUEST_TIMEOUT)
KEY = call_headers.in_scope(call_headers.IDEMPOTENCY_KEY)

LEAST_SECONDS = 0.01
"""With less time left, a request is refused at once: to stop it halfway would cost a connection to the database."""

_KEY = re.compile(rb'"?([!#-\[\]-~]{1,255})"?')
_MILLISECONDS = re.compile(rb"[0-9]{1,9}")


class Limits(limits.Limits):
    """The limits of a request. The caller may shorten the time limit.

    A header that is no duration, or no key, is ignored. RequestMiddleware joins a repeated header by a comma and a space, which
    is neither.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        key = None
        if found := _KEY.fullmatch(headers.get(KEY, b"")):
            request = f"{scope['app'].title} {scope['method']} {scope['path']}"
            key = f"{request} {found[1].decode()}", count(1)
        if _MILLISECONDS.fullmatch(milliseconds := headers.get(TIMEOUT, b"")):
            scope["caller_seconds"] = seconds = int(milliseconds) / 1000
            if seconds < LEAST_SECONDS:
                await self._out_of_time(seconds)(scope, receive, send)
                return
        known = current_key.set(key)
        try:
            await super().__call__(scope, receive, send)
        finally:
            current_key.reset(known)

    def _seconds(self, scope: Scope) -> float:
        return min(self._timeout_seconds, scope.get("caller_seconds", self._timeout_seconds))

    def _out_of_time(self, seconds: float) -> ASGIApp:
        if seconds >= self._timeout_seconds:
            return super()._out_of_time(seconds)
        # The answer has no Retry-After, because the caller's own request is over, too.
        return problems.document(504, code="deadline_exceeded", detail="the time that the caller has given is over")
