"""Run the HTTP process, and stop it without dropping a request."""

import asyncio
import faulthandler
import gc
import math
import os
import resource
import signal
import socket
from functools import partial
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from chassis.settings import Settings, SettingsError
from chassis.web.connections import Protocol, readable
from chassis.web.probes import Lifecycle
from chassis.web.shared_limits import SharedLimits

log = structlog.get_logger()

CLOSE_SECONDS = 9
"""The time after the last request or message in which connections close and telemetry is sent. Each step has a limit of
its own, 8 seconds in total. The manifests' grace periods contain this time."""

RECEIVE_BUFFER_BYTES = 64 * 1024
"""The kernel's receive buffer of each connection. It also bounds a single read: thousands of connections may be
readable in one iteration of the event loop. A larger buffer would help only uploads over long distances without a
proxy."""

OTHER_FILES = 100
"""The open files of a process besides the clients' connections: connections to database and broker, and logs."""

HEADERS = [("X-Content-Type-Options", "nosniff")]
"""The headers of every answer, which Uvicorn encodes once: a browser must not run a JSON document as a page or script."""

YOUNG_OBJECTS = 10_000
"""The garbage collector's threshold: the objects made minus the objects freed. Python's default is 700 or 2,000."""


class Server(uvicorn.Server):
    """Uvicorn with a drain: at the first signal it becomes unready and continues to serve, then stops as Uvicorn does.

    A second signal ends the drain at once; after the drain, signals have the meaning that they have in Uvicorn. If the
    stop hangs, the process prints the stacks of its threads and exits with status 1, before an orchestrator would kill
    it.
    """

    def __init__(self, config: uvicorn.Config, *, lifecycle: Lifecycle, drain_seconds: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        for listener in (each for server in self.servers for each in server.sockets):
            with socket.socket(fileno=os.dup(listener.fileno())) as same:  # uvloop's socket lacks setsockopt
                same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    async def shutdown(self, sockets: list | None = None) -> None:
        await self._accept_queued()
        await super().shutdown(sockets)

    async def _accept_queued(self) -> None:
        """Accept the connections that wait in the kernel's queue: closing the listener would reset them."""
        listeners = [each.fileno() for server in self.servers for each in server.sockets]
        for _ in range(self.config.backlog):  # bounded, because new connections may continue to arrive
            if not any(map(readable, listeners)):
                return
            await asyncio.sleep(0)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or self.should_exit:
            super().handle_exit(sig, frame)
        elif self._lifecycle.draining:
            self._loop.call_soon_threadsafe(self._end_drain)
        else:
            finish_seconds = self.config.timeout_graceful_shutdown or 0
            faulthandler.dump_traceback_later(self._drain_seconds + finish_seconds + CLOSE_SECONDS, exit=True)
            self._lifecycle.draining = True
            self._loop.call_soon_threadsafe(self._start_drain, signal.Signals(sig).name)

    def _start_drain(self, signal_name: str) -> None:
        assert self._loop is not None
        log.info("drain_started", signal=signal_name, seconds=self._drain_seconds)
        self._loop.call_later(self._drain_seconds, self._end_drain)

    def _end_drain(self) -> None:
        if not self.should_exit:
            log.info("drain_ended")
            assert self._loop is not None
            self._lifecycle.finish_by = self._loop.time() + (self.config.timeout_graceful_shutdown or 0)
        self.should_exit = True


def spare_collector() -> None:
    """Run the garbage collector less often, and never on the objects that exist after start-up.

    A request that succeeds leaves no cycles behind, so most runs would find nothing. They took a twentieth of the CPU
    time of a request, and a quarter of the relay's (bench/). Cycles that a service makes are still collected. After a
    large body, limits.py runs the collector itself.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def allow_open_files(wanted: int) -> None:
    """Raise the soft limit of open files as far as the hard limit allows. The default is often 1024, on macOS 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _inherited(descriptor: int) -> socket.socket:
    """Open the socket that the parent process has passed on. Raises SettingsError."""
    try:
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise SettingsError(
            f"  HTTP_FD: {descriptor} is no socket of this process ({error.strerror}): the parent process has to pass a "
            "listening socket on, or leave HTTP_FD out"
        ) from None


def serve(app: FastAPI, *, drain: bool = True) -> bool:
    """Serve until a signal stops the process. Return whether the start succeeded. A worker needs no drain.

    Raises SettingsError.
    """
    settings: Settings = app.state.settings
    protocol: Any = partial(Protocol, shared_limits=SharedLimits(max_connections=settings.max_connections))
    config = uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        loop="uvloop",
        http=protocol,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        headers=HEADERS,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_seconds),
        backlog=2048,
    )
    sockets = None if settings.http_fd is None else [_inherited(settings.http_fd)]
    server = Server(config, lifecycle=app.state.lifecycle, drain_seconds=settings.drain_seconds if drain else 0)
    spare_collector()
    allow_open_files(settings.max_connections + settings.database_pool_size + OTHER_FILES)
    try:
        server.run(sockets)
    except SystemExit:  # Uvicorn cannot listen, and has logged why
        log.error(
            "listening_failed",
            address=f"{settings.http_host}:{settings.http_port}",
            remedy="set HTTP_PORT to a free port and HTTP_HOST to an address of this machine",
        )
    return server.started
