"""An application of this process on a real socket."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx2
import uvicorn
from chassis.web.connections import Protocol
from chassis.web.shared_limits import SharedLimits


@asynccontextmanager
async def listening(
    app: Any, *, shared_limits: SharedLimits | None = None, http: Any = None, **options: Any
) -> AsyncGenerator[httpx2.AsyncClient]:
    """Serve the application on a real socket from this process, and yield a client of it."""
    http = http or partial(Protocol, shared_limits=shared_limits or SharedLimits(max_connections=1000))
    server = uvicorn.Server(uvicorn.Config(app, http=http, log_config=None, access_log=False, **options))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve([listener]))
        try:
            while not server.started:
                assert not running.done(), "the server did not start"
                await asyncio.sleep(0.01)
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx2.AsyncClient(base_url=base, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            await running
