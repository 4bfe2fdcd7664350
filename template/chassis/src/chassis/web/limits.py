"""Enforce the limits of a request: the bytes of its body, its time, and the number of running requests.

To change a limit, set MAX_BODY_BYTES, REQUEST_TIMEOUT_SECONDS or MAX_CONCURRENT_REQUESTS (chassis/settings).
"""

import asyncio
import codecs
import gc
from collections.abc import Awaitable, Iterable

import structlog
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import problems
from chassis.database.current_database import current_limit
from chassis.telemetry.logs import AnswerCut
from chassis.web.bodies import Body, BodyMemory, BodyStream, Disconnected, TooLarge, ends_soon
from chassis.web.connections import LINGER_BYTES
from chassis.web.middleware import PROBES

CLOSE = {"Connection": "close"}

log = structlog.get_logger()

SMALL_BODY_BYTES = 64 * 1024
"""A complete body of at most this size does not count towards MAX_BODIES_BYTES."""

MAX_BODIES_BYTES = 24 * 1024 * 1024
"""The most bytes of all arriving bodies, and of the large bodies of running requests, in the whole process."""

STREAMS_SHARE = 4
"""Requests whose body is read as a stream wait for their clients, so they get at most one of this many places."""


class Limits:
    """ASGI middleware that refuses what exceeds a limit.

    A body that is too large gets a 413, and a body that arrives too slowly a 408. A request that takes too long, or
    that comes while too many others run, gets a 503 with Retry-After.

    A request takes a place only when its body is complete: a place must not wait for the client. Probes take no
    place. A route that reads its body as a stream (`streams_body` of chassis.http) takes a place at once, and only a
    share of the places. The time limit applies to the first byte of an answer, and then to each pause of a stream.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, timeout_seconds: float, max_concurrent: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._timeout_seconds = timeout_seconds
        self._max_concurrent = max_concurrent
        self._body_memory = BodyMemory(max(MAX_BODIES_BYTES, 2 * max_body_bytes))
        self._own_limits: list[tuple[RouteContext, int | None, bool]] | None = None
        self._max_streaming = max(1, max_concurrent // STREAMS_SHARE)
        self.running = self.streaming = 0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        headers = dict(scope["headers"])
        length = None if b"transfer-encoding" in headers else int(headers.get(b"content-length", 0))
        max_bytes, streamed = self._body_of(scope) if length != 0 else (None, False)
        probe = scope["path"] in PROBES
        if probe and length == 0:
            return self._app(scope, receive, send)
        if self.running >= self._max_concurrent and not probe:
            return self._overloaded()(scope, receive, send)
        if length is not None and max_bytes is not None and length > max_bytes:
            return _too_large(max_bytes, hang_up=length > max_bytes + LINGER_BYTES)(scope, receive, send)
        return self._run(scope, receive, send, max_bytes=max_bytes, streamed=streamed, probe=probe)

    def _body_of(self, scope: Scope) -> tuple[int, bool]:
        """Return the most bytes of the body, and whether the route reads the body as a stream.

        The `max_body_size` of the route, or of a router that includes the route, replaces MAX_BODY_BYTES.
        """
        if self._own_limits is None:  # compute at the first request: by then all routes are registered
            routes = [(route, _own_limit(route)) for route in iter_route_contexts(scope["app"].routes)]
            self._own_limits = [(route, *limit) for route, limit in routes if limit != (None, False)]
            largest = max((size or 0 for _, size, streamed in self._own_limits if not streamed), default=0)
            self._body_memory.max_bytes = max(self._body_memory.max_bytes, 2 * largest)
        for route, size, streamed in self._own_limits:
            if scope["method"] in (route.methods or ()) and route.path_regex.match(scope["path"]):
                return self._max_body_bytes if size is None else size, streamed
        return self._max_body_bytes, False

    async def _run(
        self, scope: Scope, receive: Receive, send: Send, *, max_bytes: int | None, streamed: bool, probe: bool
    ) -> None:
        answering = False

        async def watch(message: Message) -> None:
            nonlocal answering
            if body is not None:
                if body.failure and not answering:
                    raise body.failure
                body.answering = True
            answering = True
            if message.get("more_body"):
                deadline.reschedule(asyncio.get_running_loop().time() + seconds)
            await send(message)

        body: Body | None = None
        seconds = self._seconds(scope)
        deadline = asyncio.timeout(seconds)
        outer = current_limit.set(deadline)
        try:
            async with deadline:
                if max_bytes is not None:
                    body = Body(max_bytes, deadline)
                if body is not None and streamed:
                    stream = BodyStream(body, receive, self._body_memory, timeout_seconds=seconds)
                    receive = stream.receive
                elif body is not None:
                    message = await self._read(body, receive)
                    if refused := _refused_json(scope["headers"], message["body"]):
                        await refused(scope, receive, watch)
                        return
                    receive = replay(message, receive)
                await self._run_in_place(scope, receive, watch, streamed=streamed, probe=probe)
        except TooLarge as error:
            if answering:
                raise AnswerCut from None
            answer = _too_large(error.max_bytes, hang_up=not error.ended)
        except Disconnected:
            return
        except TimeoutError:
            if not (deadline.expired() or (body is not None and body.refused)):
                raise
            if answering:
                log.warning("answer_cut", reason=f"silent for {seconds} s")
                raise AnswerCut from None
            answer = self._too_slow(body, seconds)
        else:
            return
        finally:
            current_limit.reset(outer)
            if body is not None:
                self._body_memory.remove(body)
                if body.size > SMALL_BODY_BYTES:
                    # If a body is not JSON, the frames of FastAPI form a cycle that holds the body. server.py makes
                    # the garbage collector so rare that the memory of a pod would be full before it runs.
                    gc.collect(1)
        await answer(scope, receive, send)

    def _seconds(self, scope: Scope) -> float:
        return self._timeout_seconds

    async def _run_in_place(self, scope: Scope, receive: Receive, send: Send, *, streamed: bool, probe: bool) -> None:
        if probe:
            await self._app(scope, receive, send)
        elif self.running >= self._max_concurrent or (streamed and self.streaming >= self._max_streaming):
            await self._overloaded()(scope, receive, send)
        else:
            self.running += 1
            self.streaming += streamed
            try:
                await self._app(scope, receive, send)
            finally:
                self.running -= 1
                self.streaming -= streamed

    async def _read(self, body: Body, receive: Receive) -> Message:
        """Read the whole body into one message. Raises TooLarge, Disconnected, and TimeoutError if there is no room."""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk, more = message.get("body", b""), message.get("more_body", False)
            body.size += len(chunk)
            if body.size > body.max_bytes:
                self._body_memory.remove(body)
                del message, chunk
                raise TooLarge(body.max_bytes, ended=not more or await ends_soon(receive))
            if more or body.refused or body.size > SMALL_BODY_BYTES:
                self._body_memory.count(body, len(chunk))
            body.content += chunk
            # Without `del`, both stay in memory while the next message is awaited: 256 KiB for each body that arrives.
            del message, chunk
        content = bytes(body.content)
        body.content.clear()
        body.complete = True
        if body.size <= SMALL_BODY_BYTES:
            self._body_memory.remove(body)
        return {"type": "http.request", "body": content, "more_body": False}

    def _overloaded(self) -> ASGIApp:
        return problems.unavailable("too many requests at once", code="overloaded")

    def _too_slow(self, body: Body | None, seconds: float) -> ASGIApp:
        if body is not None and body.refused:
            return self._overloaded()
        if body is not None and body.awaited and not body.complete:
            return problems.document(408, detail="the body did not arrive in time", headers=CLOSE)
        return self._out_of_time(seconds)

    def _out_of_time(self, seconds: float) -> ASGIApp:
        # The transaction was rolled back, or its commit was on the way: the client cannot know, hence 503 and not 4xx.
        return problems.unavailable("the request took too long", code="timed_out")


def _own_limit(route: RouteContext) -> tuple[int | None, bool]:
    """Return the `max_body_size` of a route, and whether the route reads its body as a stream."""
    return getattr(route, "max_body_size", None), getattr(route.endpoint, "streams_body", False)


def _too_large(max_bytes: int, *, hang_up: bool) -> ASGIApp:
    detail = f"the body is too large: at most {max_bytes} bytes are allowed"
    return problems.document(413, detail=detail, headers=CLOSE if hang_up else None)


def _refused_json(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> ASGIApp | None:
    """Return the refusal of a JSON body that is compressed or not UTF-8. Python would decode UTF-16 (RFC 8259)."""
    given = dict(headers)
    media_type = given.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if not body or not (media_type == b"application/json" or media_type.endswith(b"+json")):
        return None
    if given.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        advice = "send the body without Content-Encoding: this service decompresses no body"
        return problems.document(415, detail=advice, headers={"Accept-Encoding": "identity"})
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 0 in body[:4]:
        return problems.document(400, detail="the body is UTF-16 or UTF-32, but JSON is UTF-8 (RFC 8259)")
    return None


def replay(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that yields this message first, and then the messages of the given `receive`."""
    waiting = [message]

    async def replaying() -> Message:
        return waiting.pop() if waiting else await receive()

    return replaying
