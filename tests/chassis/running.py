"""Run the loops of the worker in this process, for as long as a test needs them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from chassis.messaging.worker import endure
from chassis.telemetry.setup import Telemetry
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

STOP_SECONDS = 90


@asynccontextmanager
async def running(part: str, loop: Callable[[asyncio.Event], Awaitable[None]]) -> AsyncGenerator[None]:
    """Run the loop as the worker does. At the end, ask it to stop, and check that it stops."""
    stop = asyncio.Event()
    task = asyncio.create_task(endure(part, loop, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, STOP_SECONDS)


def recording(spans: InMemorySpanExporter) -> Telemetry:
    """Make telemetry that samples everything, and exports each span when it ends."""
    return Telemetry(Resource({}), sampler=ALWAYS_ON, span_processors=[SimpleSpanProcessor(spans)], metric_readers=[])
