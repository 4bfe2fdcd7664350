"""Run an application in this process, and call it without a socket."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI


@asynccontextmanager
async def serving(
    app: FastAPI, base_url: str = "http://tiny", *, raise_app_exceptions: bool = True
) -> AsyncGenerator[httpx2.AsyncClient]:
    """Start the application, and yield its client. An exception that a server would log can be raised in the test."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=raise_app_exceptions)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url=base_url) as client:
        yield client
