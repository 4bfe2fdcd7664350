"""What one request may take from the others: bytes, time, and a place among those running."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import problems
from chassis.edge import PROBES

LINGER_BYTES = 4 * 1024 * 1024
"""How much more we read of a body that is too large. Most clients look for an answer only when they have sent it all;
on one that sends more than this we hang up."""

CLOSE = {"Connection": "close"}


class Limits:
    """ASGI middleware. Too large: 413. Too many at once, or too slow: 503 with Retry-After."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, timeout_seconds: float, max_concurrent: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._timeout_seconds = timeout_seconds
        self._max_concurrent = max_concurrent
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        if self.running >= self._max_concurrent:
            await problems.unavailable("too many requests at once", code="overloaded")(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if length is not None and int(length) > self._max_body_bytes:
            hang_up = int(length) > self._max_body_bytes + LINGER_BYTES
            await problems.document(413, detail=self._too_large, headers=CLOSE if hang_up else None)(
                scope, receive, send
            )
            return
        if length is None:
            receive = self._counted(receive)
        self.running += 1
        try:
            await self._run(scope, receive, send)
        finally:
            self.running -= 1

    @property
    def _too_large(self) -> str:
        return f"the body may have {self._max_body_bytes} bytes at most"

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = False

        async def watch(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            async with asyncio.timeout(self._timeout_seconds) as deadline:
                await self._app(scope, receive, watch)
        except TimeoutError:
            if answering or not deadline.expired():
                raise
            # The transaction was rolled back, or its commit was on the way: the client cannot know, hence 503 and not 4xx.
            await problems.unavailable("the request took too long", code="timed_out")(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        """Count a body that did not say its length."""
        received = 0

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise HTTPException(413, self._too_large, None if await _ends_soon(message, receive) else CLOSE)
            return message

        return counting


async def _ends_soon(message: Message, receive: Receive) -> bool:
    """Read on and drop it. True if the body ended within LINGER_BYTES."""
    left = LINGER_BYTES
    while message.get("more_body") and left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
    return not message.get("more_body")
