"""Bound the memory of bodies, and let a route read its body as a stream."""

import asyncio

from starlette.types import Message, Receive

from chassis.web.connections import LINGER_BYTES

MIN_BYTES_PER_SECOND = 16 * 1024
"""A body that is read as a stream has to arrive at this speed, apart from pauses of REQUEST_TIMEOUT_SECONDS in all."""


class TooLarge(Exception):
    """The body has more than `max_bytes`. `ended` states whether the whole body has been read."""

    def __init__(self, max_bytes: int, *, ended: bool) -> None:
        super().__init__()
        self.max_bytes, self.ended = max_bytes, ended


class Disconnected(Exception):
    """The client left, or broke the protocol, before its body was complete."""


class Body:
    """A body that is arriving, or that a running request keeps."""

    size = 0
    awaited = True
    """Whether the client has to send more, before anything else can happen."""
    complete = refused = False
    answering = False
    """Whether the answer has begun."""
    failure: Exception | None = None
    """Why the body cannot be read. If a route has the body as a parameter, FastAPI catches this error and answers 400."""

    def __init__(self, max_bytes: int, deadline: asyncio.Timeout) -> None:
        self.max_bytes, self.deadline = max_bytes, deadline
        # The bytes that have arrived. A list would need far more memory, if a client sends two bytes at a time.
        self.content = bytearray()


class BodyMemory:
    """Bound the memory that bodies take. To make room, refuse the body that has been arriving for longest."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._bytes = 0
        self._counted: dict[Body, int] = {}

    def count(self, body: Body, size: int) -> None:
        """Count `size` more bytes of the body. Raises TimeoutError if this body is refused, now or before."""
        if not body.refused:
            self._counted[body] = self._counted.get(body, 0) + size
            self._bytes += size
        while self._bytes > self.max_bytes and not body.refused:
            self._refuse(next((each for each in self._counted if not each.complete), body))
        if body.refused:
            raise TimeoutError

    def remove(self, body: Body) -> None:
        """Free the bytes of the body at once, because the task that reads the body may run much later."""
        body.content.clear()
        self._bytes -= self._counted.pop(body, 0)

    def _refuse(self, body: Body) -> None:
        self.remove(body)
        body.refused = True
        if not body.deadline.expired():  # after its deadline, the request is ending already
            body.deadline.reschedule(0)


class BodyStream:
    """The `receive` of a route that reads its body as a stream.

    A part of the body counts towards the memory of bodies until the route asks for the next part. The route has
    `timeout_seconds` for each part. The client also starts with `timeout_seconds`: waiting for the client uses this time up,
    and each byte that arrives restores a bit of it. With a limit for each pause alone, a client that sends a byte now and
    then would keep its place among the running requests without end.
    """

    def __init__(self, body: Body, receive: Receive, memory: BodyMemory, *, timeout_seconds: float) -> None:
        self._body = body
        body.awaited = False  # until the route asks for the first part
        self._receive = receive
        self._memory = memory
        self._readers: set[asyncio.Task | None] = set()
        self._timeout_seconds = self._patience_seconds = timeout_seconds

    async def receive(self) -> Message:
        """Receive the next part. Raises TooLarge, Disconnected, and TimeoutError if there is no room."""
        try:
            return await self._receive_part()
        except (TooLarge, Disconnected, TimeoutError) as error:
            self._body.failure = error
            raise

    async def _receive_part(self) -> Message:
        body, now = self._body, asyncio.get_running_loop().time
        if not body.answering:
            self._readers.add(asyncio.current_task())
        elif asyncio.current_task() not in self._readers:
            # Starlette's StreamingResponse waits for the end of the connection meanwhile, by dropping parts of the body.
            raise RuntimeError("a streamed answer cannot read the body: read the whole body before the answer begins")
        if body.complete:
            return await self._receive()
        if body.refused or body.deadline.expired():
            raise TimeoutError
        self._memory.remove(body)
        began, body.awaited = now(), True
        body.deadline.reschedule(began + self._patience_seconds)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        size, more = len(message.get("body", b"")), message.get("more_body", False)
        body.size += size
        if body.size > body.max_bytes:
            raise TooLarge(body.max_bytes, ended=not more or await ends_soon(self._receive))
        left = self._patience_seconds - (now() - began) + size / MIN_BYTES_PER_SECOND
        self._patience_seconds = min(left, self._timeout_seconds)
        body.deadline.reschedule(now() + self._timeout_seconds)
        body.awaited, body.complete = False, not more
        self._memory.count(body, size)
        return message


async def ends_soon(receive: Receive) -> bool:
    """Read and drop the rest of the body. Return whether the body ended within LINGER_BYTES."""
    left = LINGER_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            return True
        del message  # otherwise the message stays in memory while the next one is awaited
    return False
