"""Measure a call of another service by the policy of chassis.neighbours, compared with a bare client of httpx2.

`make bench-calls`, or `make bench-calls ARGS="--rounds 1"` for a quick look. Both clients call the same small server, one call
after the other, and read a customer from the JSON. The calls by the policy have the deadline of a request, and each has a
span that is exported over OTLP; the exporter's thread counts. Rounds alternate, and medians are shown.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import httpx2
import uvloop
from chassis.database.current_database import current_limit
from chassis.neighbours import NeighbourSettings
from chassis.telemetry.otlp import SpanExporter
from chassis.telemetry.setup import Telemetry, sampler_of
from chassis.web.server import spare_collector
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from bench.process import App
from tests.support.leftovers import clean_up_after_this_process

CUSTOMER = b'{"id":"0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d","name":"Ada Lovelace","status":"active","version":3}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(CUSTOMER)).encode())]
PATH = "/v1/customers/0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"
WARM_UP = 200


async def neighbour(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with the same customer, even the requests of the exporter."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": CUSTOMER})


class Round(NamedTuple):
    cpu_us: float
    p50_us: float


async def measure(client: httpx2.AsyncClient, calls: int, flush: Callable[[], object]) -> Round:
    """Make this number of calls, and return the CPU time and the median duration of a call."""
    durations = []
    cpu = time.process_time()
    for _ in range(calls):
        started = time.perf_counter()
        answer = await client.get(PATH)
        assert answer.json()["name"] == "Ada Lovelace"
        durations.append(time.perf_counter() - started)
    flush()
    return Round((time.process_time() - cpu) / calls * 1e6, median(durations) * 1e6)


async def compare(url: str, calls: int, rounds: int) -> None:
    settings = NeighbourSettings.model_validate(
        {"database_url": "postgresql://x/y", "neighbour_url": f"{url}/?{{name}}"}
    )
    processor = BatchSpanProcessor(SpanExporter(endpoint=f"{url}/v1/traces"), schedule_delay_millis=1000)
    telemetry = Telemetry(
        Resource({}),
        sampler=sampler_of(settings),
        span_processors=[processor],
        metric_readers=[InMemoryMetricReader()],
    )
    telemetry.install_globally()
    found: dict[str, list[Round]] = {"policy": [], "bare": []}
    async with (
        httpx2.AsyncClient(base_url=url, timeout=5) as bare,
        settings.client_for("customers") as by_policy,
        asyncio.timeout(3600) as limit,
    ):
        by_policy.base_url = url
        current_limit.set(limit)
        clients = {"policy": by_policy, "bare": bare}
        for number in range(-1, rounds):
            for name, client in clients.items():
                with trace.get_tracer("bench").start_as_current_span("request"):
                    result = await measure(client, WARM_UP if number < 0 else calls, processor.force_flush)
                found[name] += [result] if number >= 0 else []
    telemetry.shutdown()
    ours, theirs = (Round(*map(median, zip(*found[name], strict=True))) for name in ("policy", "bare"))
    print("| | policy | bare httpx2 | ratio |\n|---|---|---|---|")
    for label, mine, other in (("CPU", ours.cpu_us, theirs.cpu_us), ("latency, p50", ours.p50_us, theirs.p50_us)):
        print(f"| {label} | {mine:.0f} µs | {other:.0f} µs | {mine / other:.2f} |")


def main() -> None:
    clean_up_after_this_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="calls of a round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    flags = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    server = App(
        "neighbour",
        [sys.executable, "-m", "uvicorn", *flags, "--port", "PORT", "bench.calls:neighbour"],
        {**os.environ},
    )
    spare_collector()  # as a process of a service does
    with server.running():
        uvloop.run(compare(server.url, options.calls, options.rounds))


if __name__ == "__main__":
    main()
