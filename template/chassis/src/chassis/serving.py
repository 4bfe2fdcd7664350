"""Run the HTTP process, and stop it without dropping a request."""

import asyncio
import contextlib
import gc
import math
import signal
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chassis.health import Lifecycle
from chassis.settings import Settings

log = structlog.get_logger()

LINGER_SECONDS = 0.25
"""Between the end of the drain and closing the listener: what arrived before the end is still in the kernel's queues,
and a close would reset it."""

YOUNG_OBJECTS = 10_000
"""How many more containers are made than freed before the garbage collector looks for cycles; Python says 700 or 2,000."""


MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_SECONDS = 10


class OnePacket:
    """A transport that sends what is written to it in one turn of the loop at once.

    Uvicorn writes the head of an answer and its body one by one, and uvloop sends each as it comes: two system calls and
    two packets. A head whose body is not there yet goes out at the end of the turn.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif data:
            self._held = data
            self._loop.call_soon(self._send_held)

    def close(self) -> None:
        self._send_held()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _send_held(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """Uvicorn's, with bounds to the head of a request: what limits.py bounds is told of it when it is whole.

    One that goes on after MAX_HEAD_BYTES is answered with 400. On one that is not whole HEAD_TIMEOUT_SECONDS after it
    began we hang up, and on a connection that says nothing as on one between two requests.
    """

    def connection_made(self, transport: Any) -> None:
        packing: Any = OnePacket(transport, self.loop)
        super().connection_made(packing)
        self._in_head, self._head_bytes = False, 0
        self._deadline: asyncio.TimerHandle | None = None
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The request's headers are too large.")
            elif self._deadline is None:  # most heads come in one piece, and need none
                self._deadline = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._drop_deadline()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_deadline()
        super().connection_lost(exc)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """Uvicorn with a drain: on the first signal turn unready and go on serving, then stop as Uvicorn does.

    A second signal ends the drain at once; after the drain, signals mean what they mean to Uvicorn.
    """

    def __init__(self, config: uvicorn.Config, *, lifecycle: Lifecycle, drain_seconds: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or self.should_exit:
            super().handle_exit(sig, frame)
        elif self._lifecycle.draining:
            self._loop.call_soon_threadsafe(self._end_drain)
        else:
            self._lifecycle.draining = True
            self._loop.call_soon_threadsafe(self._start_drain, signal.Signals(sig).name)

    def _start_drain(self, signal_name: str) -> None:
        assert self._loop is not None
        log.info("drain_started", signal=signal_name, seconds=self._drain_seconds)
        self._loop.call_later(self._drain_seconds + LINGER_SECONDS, self._end_drain)

    def _end_drain(self) -> None:
        if not self.should_exit:
            log.info("drain_ended")
        self.should_exit = True


def spare_collector() -> None:
    """Look for garbage less often, and never among what start-up made.

    A request leaves no cycles behind, so that most looks are in vain: they took a twentieth of a request's CPU, and a
    quarter of the relay's (bench/). A service that does make cycles still has them collected.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def serve(app: FastAPI, *, drain: bool = True) -> bool:
    """Serve until a signal says stop. True if it stopped cleanly. `drain=False`: nobody routes requests here."""
    settings: Settings = app.state.settings
    config = uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        loop="uvloop",
        http=Protocol,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_seconds),
        backlog=2048,
    )
    server = Server(config, lifecycle=app.state.lifecycle, drain_seconds=settings.drain_seconds if drain else 0)
    spare_collector()
    with contextlib.suppress(SystemExit):  # Uvicorn exits itself when the port is taken; it has said so
        server.run()
    return server.started
