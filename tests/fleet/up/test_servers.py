"""The servers that all services of a product share."""

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chassis.dev.embedded import EmbeddedServerError, spawn
from chassis.dev.embedded.child_process import Server

from fleet.up import servers
from fleet.up.memory import Memory
from tests.support.waiting import until

ENDED = "import sys; sys.exit(1)"


@pytest.fixture
def ended() -> Iterator[Server]:
    """A server whose process has ended."""
    process = spawn([sys.executable, "-S", "-c", ENDED], stop_signal=signal.SIGTERM)
    process.child.wait()
    yield Server("kafka://127.0.0.1:1", process)
    process.stop()


async def test_a_broker_that_cannot_start_again_is_reported_once_and_delays_no_other_server(
    ended: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "LOOK_SECONDS", 0.01)
    attempts: list[str] = []
    is_over = threading.Event()

    def fail() -> Server:
        attempts.append("Kafka")
        raise EmbeddedServerError("the engine was ended")

    def hang() -> Server:
        is_over.wait(60)
        raise EmbeddedServerError("the run ends")

    told: list[str] = []
    kept = servers.Servers(Memory(tmp_path), {"rabbitmq": hang, "kafka": fail}, told.append)
    kept._running |= {"RabbitMQ": ended, "Kafka": ended}
    keeping = asyncio.create_task(kept.keep())
    try:
        await until(lambda: len(attempts) > 3, lambda: told)
        assert [one for one in told if "Kafka" in one] == [
            "Kafka has ended, and is started again",
            "Kafka: the engine was ended",
        ]
    finally:
        is_over.set()
        keeping.cancel()
        await asyncio.wait([keeping])
