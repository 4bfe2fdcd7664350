"""Limit the bytes and the time of a connection.

limits.py limits a request once its head is complete. This module limits the rest: heads, chunk framing, trailers,
requests sent ahead of an answer, bodies that the application does not read, and answers that the client does not read.
"""

import asyncio
import select
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chassis import problems
from chassis.web.packet_transport import PacketTransport
from chassis.web.request_head import CHUNKED, Refused, body_length
from chassis.web.shared_limits import SharedLimits

MAX_HEAD_BYTES = 64 * 1024
MAX_HEAD_FIELDS = 200
HEAD_TIMEOUT_SECONDS = 10
"""The time limit from the first byte of a head to its last byte."""

FIRST_REQUEST_SECONDS = 1
"""When the server stops, a connection without a request is closed at this age: a client that has just connected sends
its request within moments, and could not know whether the server has processed a request on a closed connection."""

MAX_FRAMING_BYTES = 16 * 1024
FRAMING_PER_BODY_BYTE = 8
"""A chunked body may have this many bytes of framing (sizes, extensions, trailers) per byte of content, and
MAX_FRAMING_BYTES more. A chunk with one byte of content has at least five bytes of framing."""

PIECE_BYTES = 4096
"""The parser gets at most this many bytes at once, unless the length of the body is known."""

CHUNKS_AT_ONCE = 500
"""The chunks that are parsed before the other connections have their turn: each chunk takes a microsecond."""

LINGER_BYTES = 4 * 1024 * 1024
LINGER_SECONDS = 10
"""After the answer, the rest of a body is read and dropped, up to this number of bytes and for this time: most clients read
an answer only after they have sent the whole body. A client that sends more is disconnected."""

STALL_SECONDS = 30
"""A client that reads nothing of its answer for this long is disconnected."""

UNCOUNTED_BYTES = 4096
"""A body of at most this size is not counted while it waits for the application. Most bodies are smaller."""

EMPTY_LINE = b"\r\n\r\n"


def readable(file: int) -> bool:
    """Return whether the socket has a connection to accept, or bytes or the end of a stream to read, at this moment."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


class GatedFlow(FlowControl):
    """Flow control that reads nothing while a request waits for the answer to the request before it."""

    full = False

    def resume_reading(self) -> None:
        if not self.full:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """Uvicorn's protocol with limits. It parses a request only after the previous request has been answered.

    The parser gets pieces that end where a request may end, so that the rest can wait unparsed. Every head without
    a body and every chunked body ends with an empty line, and the parser accepts no other line end than CRLF.

    A body in many tiny chunks is parsed in turns with everything else that the event loop does.
    """

    parser: Any  # None once the connection is lost, when the parser is no longer called
    connections: Any  # a set of Protocols

    def __init__(self, *args: Any, shared_limits: SharedLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shared = shared_limits
        self._held = 0
        self._unparsed = b""
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._expect_head()

    def connection_made(self, transport: Any) -> None:
        packing: Any = PacketTransport(transport, self.loop)
        super().connection_made(packing)
        self.flow = self._reading = GatedFlow(packing)
        self._start_keep_alive()
        if len(self.connections) > self._shared.max_connections:
            self._cut_the_longest_waiting(self.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_deadline()
        self._drop_stall()
        self._unset_keepalive_if_required()
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._unparsed:
            data, self._unparsed = self._unparsed + data, b""
        self._parse(data)

    def eof_received(self) -> bool:  # ty: ignore[incompatible-method-override]
        """Keep the connection open for the answer to a complete request, although the client sends no more.

        The client may also have closed the connection: both cases look the same. So an answer that has started is cut,
        because it may be a stream without an end.
        """
        awaited = self._complete and not self.cycle.response_started
        if awaited:
            self.cycle.keep_alive = False
        return awaited

    def shutdown(self) -> None:
        """Close an idle connection, but not one whose client has sent a request, or the first part of one.

        The answer to that request closes the connection, because the server is draining. A new connection has time for
        its first request.
        """
        if self.transport.is_closing():
            return
        if self._in_head and (self._head_bytes or readable(self.transport.get_extra_info("socket").fileno())):
            return
        if self.cycle is None and self._waiting_since is not None:
            left = self._waiting_since + FIRST_REQUEST_SECONDS - self.loop.time()
            if left > 0:
                self.loop.call_later(left, self.shutdown)
                return
        super().shutdown()

    def _parse(self, data: bytes) -> None:
        """Parse up to the end of the current request. The bytes after it wait."""
        interrupted, self._chunks = False, 0
        start = 0  # the first unparsed byte: slicing `data` instead would copy the bytes for each empty line in a body
        while start < len(data) and not self._complete:
            if interrupted := self._chunks > CHUNKS_AT_ONCE:
                self._shared.interrupt(self)
                break
            end = start + self._body_left if self._body_left > 0 else _end_of_piece(data, start)
            if end <= start:
                break
            piece, start = data[start:end], end
            try:
                self._feed(piece)
            except (Refused, httptools.HttpParserError) as error:
                self._refuse(error)
                return
        data = data[start:]
        self._unparsed = data
        if self._in_head and (self._head_bytes or data) and self._deadline is None:  # most heads come in one piece
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.transport.close)
        if data and (self._complete or interrupted):
            self._reading.full = True
            self.flow.pause_reading()
        if self._in_head or data or self._held or len(self.cycle.body) > UNCOUNTED_BYTES:
            self._hold()

    def _feed(self, piece: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(piece)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise Refused("The head of the request is larger than 64 KiB.")
        elif self._body_left > 0:
            self._body_left -= len(piece)
        else:
            self._framing_bytes += len(piece)
        if not self._in_head and self.cycle.response_complete:
            self._dropped_bytes += len(piece)
            if self._dropped_bytes > LINGER_BYTES:
                raise Refused(f"The body has more than {LINGER_BYTES} bytes after its request was answered.")
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._ignore_upgrade()
        if self._complete:
            if self.cycle.response_complete:
                self._go_on()
        elif self._framing_bytes > MAX_FRAMING_BYTES:
            raise Refused("The body has too much framing: chunk extensions, trailers or tiny chunks.")

    def _refuse(self, error: Exception) -> None:
        cause = (
            error.__context__ if isinstance(error.__context__, Refused | httptools.HttpParserInvalidURLError) else error
        )
        self._drop_deadline()
        if not self._in_head:
            if self.cycle.response_started:  # the client has the answer, or a part of it
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.logger.warning("Invalid HTTP request received: %s", cause)
        self.send_400_response(str(cause))

    def send_400_response(self, msg: str) -> None:
        answer = problems.document(400, detail=msg, headers={"Connection": "close"})
        lines = [b"HTTP/1.1 400 Bad Request"]
        lines += [name + b": " + value for name, value in (*self.server_state.default_headers, *answer.raw_headers)]
        self.transport.write(b"\r\n".join((*lines, b"", bytes(answer.body))))
        self.transport.close()

    # Callbacks of the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # trailers are dropped: they must not be merged into the headers (RFC 9110, 6.5.1)
        if len(self.headers) >= MAX_HEAD_FIELDS:
            raise Refused(f"The request has more than {MAX_HEAD_FIELDS} headers.")
        # The rest repeats Uvicorn's code: a call of super() for each header would cost more than everything else here.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        version = self.parser.get_http_version()
        self._body_left = body_length(self.headers, version)
        if version == "1.0" or self._body_left == 0:
            self.expect_100_continue = False  # RFC 9110, section 10.1.1
        super().on_headers_complete()
        self._in_head = False
        self._drop_deadline()
        if self._body_left:
            self.cycle.receive = partial(self._receive, self.cycle.receive)

    def on_body(self, body: bytes) -> None:
        if self._body_left == CHUNKED:
            self._chunks += 1
            self._framing_bytes = max(0, self._framing_bytes - len(body) * (1 + FRAMING_PER_BODY_BYTE))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._complete = True
        self._waiting_since = None
        super().on_message_complete()

    def _ignore_upgrade(self) -> None:
        """Parse the head again without its Upgrade header, because with that header the parser drops the body."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise Refused("The request method is CONNECT, which only a proxy supports: this server is not a proxy.")
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join((method + b" " + self.url + b" HTTP/" + version, *fields, b"", b"")))

    async def _receive(self, receive: Callable[[], Awaitable[Any]]) -> Any:
        """Receive a part of the body for the application, which counts the bytes of that part from here on."""
        message = await receive()
        if self._held:
            self._hold()
        return message

    # Callbacks of the answers

    def on_response_complete(self) -> None:
        self._drop_body()
        if self._held:
            self._hold()
        super().on_response_complete()
        if self._complete and not self.flow.write_paused:
            self._go_on()
            return
        self._waiting_since = self.loop.time()
        if self._complete or self.transport.is_closing():
            return
        if self.expect_100_continue:  # the next bytes may belong to the body or to the next request
            self.transport.close()
        else:
            self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _go_on(self) -> None:
        """Expect the next request, unless the client leaves answers unread."""
        if self.flow.write_paused:
            return
        self._drop_deadline()
        self._expect_head()
        if self.transport.is_closing():
            return
        if self._reading.full:
            self._read_on()
        elif self.timeout_keep_alive_task is None:
            self._start_keep_alive()

    def continue_parsing(self) -> None:
        """Parse the rest of the bytes, after the other connections have had their turn."""
        if not self.transport.is_closing():
            self._read_on()

    def _read_on(self) -> None:
        self._reading.full = False
        self.flow.resume_reading()
        data, self._unparsed = self._unparsed, b""
        self.data_received(data)

    def _expect_head(self) -> None:
        self._in_head, self._complete = True, False
        self._waiting_since: float | None = self.loop.time()
        self._head_bytes = self._body_left = self._framing_bytes = self._dropped_bytes = 0

    def pause_writing(self) -> None:
        super().pause_writing()
        self._hold()
        self._watch_stall(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._drop_stall()
        self._hold()
        if self._complete and self.cycle.response_complete and not self.transport.is_closing():
            self._go_on()

    def _watch_stall(self, unread: int) -> None:
        self._stalled = self.loop.call_later(STALL_SECONDS, self._cut_if_stalled, unread)

    def _cut_if_stalled(self, unread: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= unread:
            self.transport.abort()
        else:
            self._watch_stall(left)

    # The bounds that all connections share

    def _hold(self) -> None:
        """Count the bytes that this connection holds, and make room if all connections together hold too many."""
        held = len(self._unparsed) + (self._head_bytes if self._in_head else len(self.cycle.body))
        if self.flow.write_paused:
            held += self.transport.get_write_buffer_size()
        self._shared.held_bytes += held - self._held
        self._held = held
        while self._shared.held_bytes > self._shared.max_held_bytes and self in self.connections:
            self._cut_the_longest_waiting([each for each in self.connections if each._held])

    def _cut_the_longest_waiting(self, connections: Iterable[Any]) -> None:
        """Cut the connection that has waited longest for a complete request, or else this connection."""
        waiting = [each for each in connections if each._waiting_since is not None and each is not self]
        longest = min(waiting, key=lambda each: each._waiting_since, default=self)
        longest._forget()
        longest.transport.abort()

    def _forget(self) -> None:
        """Free the unread bytes at once.

        The event loop may read many sockets before it runs a task. And the objects of a connection form a cycle, which
        the garbage collector would find late, because it runs rarely (see server.py).
        """
        self.connections.discard(self)
        self._shared.held_bytes -= self._held
        self._held = 0
        self._unparsed = b""
        if not self._in_head:
            self.cycle.disconnected = True  # otherwise the application would take the empty body for a complete body
            self._drop_body()

    def _drop_body(self) -> None:
        self.cycle.body = bytearray()
        vars(self.cycle).pop("receive", None)  # this function refers to the cycle and to this connection

    def _start_keep_alive(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _drop_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def _end_of_piece(data: bytes, start: int) -> int:
    """Find the end of the first piece: after an empty line, or before bytes that may be the start of an empty line."""
    stop = start + PIECE_BYTES
    found = data.find(EMPTY_LINE, start, stop)
    if found >= 0:
        return found + len(EMPTY_LINE)
    piece = data[start:stop]
    partial_line = next((size for size in (3, 2, 1) if piece.endswith(EMPTY_LINE[:size])), 0)
    return start + len(piece) - partial_line
