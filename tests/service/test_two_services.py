"""Two services on each real broker: one trace through both, and no loss when parts stop, are down or are killed."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.service.chaos.__main__ import Answers, count, load, run
from tests.service.chaos.system import System, system
from tests.support import brokers
from tests.support.otlp import OtlpReceiver, Span
from tests.support.waiting import until, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chaos")]

WAIT_SECONDS = 90
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
PER_SECOND = 10
"""Requests per second. `make chaos` sends more."""


@pytest.fixture(scope="module")
def receiver() -> Generator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module", params=list(brokers.BROKERS))
def running(request: pytest.FixtureRequest, receiver: OtlpReceiver) -> Generator[System]:
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(
                system(
                    request.param,
                    # the clerk does the same work on each broker, so one broker is enough
                    with_clerk=request.param == "nats",
                    OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
                    LOG_LEVEL="debug",
                )
            )
        except brokers.Missing as reason:
            pytest.skip(str(reason))
        asyncio.run(running.wait_until_up())
        yield running


def test_a_request_and_all_that_follows_is_one_trace(running: System, receiver: OtlpReceiver) -> None:
    receiver.spans.clear()
    headers = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01"}
    assert httpx2.post(f"{running.base}/v1/counters/traced/steps", headers=headers, timeout=60).status_code == 201

    expected = [
        "POST /v1/counters/{name}/steps",
        "INSERT counter.counters",
        "INSERT chassis.outbox",
        "COMMIT",
        "send counter.stepped.v1",
        "process counter.stepped.v1",
        "INSERT chassis.inbox",
        "INSERT journal.entries",
        "COMMIT",
    ]
    spans = receiver.wait_for(TRACE_ID, count=len(expected), timeout=WAIT_SECONDS)
    assert sorted(span.name for span in spans) == sorted(expected)

    def one(name: str, service: str) -> Span:
        (span,) = [span for span in spans if span.name == name and span.service == service]
        return span

    request = one("POST /v1/counters/{name}/steps", "counter")
    sent = one("send counter.stepped.v1", "counter")
    processed = one("process counter.stepped.v1", "journal")
    assert request.parent_id == CALLER
    for name in ("INSERT counter.counters", "INSERT chassis.outbox", "COMMIT", "send counter.stepped.v1"):
        assert one(name, "counter").parent_id == request.span_id
    assert processed.parent_id == sent.span_id
    for name in ("INSERT chassis.inbox", "INSERT journal.entries", "COMMIT"):
        assert one(name, "journal").parent_id == processed.span_id
    assert (sent.kind, processed.kind) == ("PRODUCER", "CONSUMER")
    assert sent.attributes["messaging.system"] == processed.attributes["messaging.system"]
    assert sent.attributes["messaging.message.id"] == processed.attributes["messaging.message.id"]


async def until_more(answers: Answers) -> None:
    before = answers.taken.total()
    await until(lambda: answers.taken.total() >= before + 10, lambda: answers)


def test_stopping_under_load_loses_nothing_and_redelivers_nothing_that_was_done(
    running: System, receiver: OtlpReceiver
) -> None:
    async def go() -> None:
        answers = Answers()
        stop = asyncio.Event()
        loading = asyncio.create_task(load(running.base, stop, answers, per_second=PER_SECOND))
        for name in ("consumer", "relay", "consumer"):
            log = running.folder / f"{name}.log"
            started = lines(log, f"{name}_started")
            await until_more(answers)
            assert await asyncio.to_thread(running.parts[name].stop) == 0
            running.parts[name].start()
            await asyncio.to_thread(
                wait_until,
                lambda log=log, name=name, before=started: lines(log, f"{name}_started") > before,
                running.logs,
            )
        await until_more(answers)
        stop.set()
        await loading
        result = await count(running, answers)
        assert result.good, (result, running.logs())

    asyncio.run(go())

    def delivered_twice() -> list[str]:
        """Return the messages that the consumer got twice, and for which the spans so far show only one send."""
        sends = Counter(span.attributes["messaging.message.id"] for span in receiver.spans if span.kind == "PRODUCER")
        return [known for known in known_messages(running.folder / "consumer.log") if sends[known] < 2]

    wait_until(lambda: delivered_twice() == [], lambda: (delivered_twice(), running.logs()))


@pytest.mark.parametrize("running", ["nats"], indirect=True)
def test_a_broker_that_is_away_stops_no_request_and_is_told_of_once(running: System) -> None:
    """tests/chassis/brokers/test_brokers.py shows for each broker that its loss is an unavailable broker to the relay."""
    relay = running.folder / "relay.log"

    def readiness() -> dict[str, Any]:
        return httpx2.get(f"{running.base}/readyz", timeout=60).json()

    running.parts["broker"].kill()
    running.parts["relay"].stop()
    told_before = lines(relay, "worker_interrupted")
    running.parts["relay"].start()
    try:
        for _ in range(3):
            assert httpx2.post(f"{running.base}/v1/counters/away/steps", timeout=60).status_code == 201
        wait_until(lambda: lines(relay, "worker_interrupted") > told_before)
        wait_until(lambda: readiness()["outbox"]["waiting"] >= 3)
        assert readiness()["status"] == "ok"
    finally:
        running.parts["broker"].start()
    wait_until(lambda: readiness()["outbox"] == {"waiting": 0, "oldest_seconds": 0})
    assert lines(relay, "worker_interrupted") == told_before + 1
    result = asyncio.run(count(running, Answers()))
    assert result.good, (result, running.logs())


def test_nothing_is_lost_doubled_or_disordered_when_parts_are_killed(
    running: System, request: pytest.FixtureRequest
) -> None:
    """This is the short form of `make chaos`."""
    seed = random.randrange(10**6)
    rounds = len(running.parts)  # each part is killed once
    result = asyncio.run(run(running, rounds=rounds, seed=seed, errand_seconds=2, per_second=PER_SECOND))
    broker = request.node.callspec.params["running"]
    assert result.good, (
        f"python -m tests.service.chaos {broker} --rounds {rounds} --seed {seed}: {result}\n{running.logs()}"
    )


def known_messages(log: Path) -> list[str]:
    """Return the ids of messages that were delivered again after they had been handled."""
    events = [json.loads(line) for line in log.read_text().splitlines() if '"message_known"' in line]
    return [event["message_id"] for event in events]


def lines(log: Path, event: str) -> int:
    return log.read_text().count(f'"event": "{event}"')
