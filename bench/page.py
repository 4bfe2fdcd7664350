"""Measure the page of traces: 10,000 spans of one trace, frames while it scrolls, and a store with 200,000 spans."""

import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chassis.dev.viewer import server as viewer
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.chassis.dev.sent_spans import export, span
from tests.support.browser import browser
from tests.support.leftovers import clean_up_after_this_process

LARGE = "f" * 32
BATCH = 512
"""The spans of an export of the chassis."""

FRAMES = 300
LATE_MILLISECONDS = 17.5
"""A frame is late if it comes after its time of 1/60 s."""

SCROLL = """
async ([frames, step]) => {
  const frame = () => new Promise(requestAnimationFrame);
  const box = document.getElementById("waterfall");
  const times = [];
  let last = await frame();
  for (let number = 0; number < frames; number++) {
    box.scrollTop += step;
    const now = await frame();
    times.push(now - last);
    last = now;
  }
  return times;
}
"""
STEP_PIXELS = 400


def main() -> None:
    clean_up_after_this_process()
    with tempfile.TemporaryDirectory() as folder, viewer.running(Path(folder)) as shown:
        bodies = [export(list(batch)) for batch in batches(range(1, 10_001))]
        print(f"10,000 spans of one trace, received:    {timed(lambda: [send(shown, body) for body in bodies])}")
        print(f"the same trace, as JSON:                {timed(lambda: get(shown, f'traces/{LARGE}'))}")
        scroll(shown)
        filled = timed(lambda: [send(shown, export(list(requests(number)))) for number in range(500)])
        print(f"200,000 spans of 20,000 traces, sent:   {filled}; {shown.store.traces()['count']:,} traces are kept")
        for path in ("traces", "traces?text=step&status=2", "edges?seconds=300"):
            print(f"{path:<40}{timed(lambda path=path: get(shown, path))}")
        print(f"the files have {sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6:.0f} MB")


def timed(action: Callable[[], Any]) -> str:
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return f"{time.perf_counter() - wall:.2f} s, of which {time.process_time() - processor:.2f} s on a processor"


def batches(numbers: range) -> Iterator[Iterator[Any]]:
    for first in range(numbers.start, numbers.stop, BATCH):
        batch = range(first, min(first + BATCH, numbers.stop))
        yield (
            span(number, number // 4, trace=LARGE, name=f"step {number}", db__query__text="SELECT 1")
            for number in batch
        )


def requests(batch: int) -> Iterator[Any]:
    """Yield 40 requests of 10 spans: a call, a message and SQL."""
    kinds = trace_pb2.Span
    for number in range(40):
        about: dict[str, Any] = {"trace": f"{batch * 40 + number + 1:032x}", "start": time.time_ns()}
        message = about | {"messaging__destination__name": "orders.order-placed.v1"}
        yield span(1, name="GET /step", http__response__status_code=200, **about)
        yield span(2, 1, kind=kinds.SPAN_KIND_CLIENT, http__request__method="GET", **about)
        yield span(3, 2, **about)
        yield span(4, 3, kind=kinds.SPAN_KIND_PRODUCER, **message)
        yield span(5, 4, kind=kinds.SPAN_KIND_CONSUMER, **message)
        for query in range(6, 11):
            yield span(query, 5, kind=kinds.SPAN_KIND_CLIENT, db__query__text="SELECT 1", **about)


def scroll(shown: viewer.Viewer) -> None:
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 820})
        page.goto(f"{shown.url}#/traces/{LARGE}")
        page.locator("#waterfall .row").first.wait_for()
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = task_seconds(session)
        times = sorted(page.evaluate(SCROLL, [FRAMES, STEP_PIXELS]))
        used = 1000 * (task_seconds(session) - before) / FRAMES
        late = sum(time > LATE_MILLISECONDS for time in times)
        nodes = page.evaluate("document.querySelectorAll('*').length")
        print(
            f"{FRAMES} frames of scrolling, {nodes} nodes:      median {times[FRAMES // 2]:.1f} ms, {late} late, longest {times[-1]:.1f} ms; "
            f"the page's thread took {used:.1f} ms of a processor for each"
        )


def task_seconds(session: Any) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def send(shown: viewer.Viewer, body: bytes) -> None:
    fetch(urllib.request.Request(f"{shown.endpoint}/v1/traces", data=body))


def get(shown: viewer.Viewer, path: str) -> None:
    fetch(urllib.request.Request(shown.url + path))


def fetch(request: urllib.request.Request) -> None:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        answer.read()


if __name__ == "__main__":
    main()
