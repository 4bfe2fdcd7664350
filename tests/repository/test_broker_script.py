"""The script that starts real brokers: any end of the script ends them, and a killed broker restarts with its data."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import brokers
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

GONE_SECONDS = 60


def listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "ending"), [*((name, signal.SIGKILL) for name in brokers.BROKERS), ("nats", signal.SIGINT)]
)
def test_the_broker_ends_with_the_script(name: str, ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.support.brokers", name]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout
        url = script.stdout.readline().strip()
        if not url:
            pytest.skip("it says above what is missing")
        assert listens(url)
        script.send_signal(ending)
        try:
            script.wait(GONE_SECONDS)
        finally:
            script.kill()
    deadline = time.monotonic() + GONE_SECONDS
    while listens(url):
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.05)


def test_a_killed_broker_is_gone_until_its_start_on_the_same_port_and_folder(tmp_path: Path) -> None:
    with brokers.nats(tmp_path) as broker:
        broker.kill()
        assert not listens(broker.url)
        broker.start()
        assert listens(broker.url)
    assert not listens(broker.url)
    assert broker.folder == tmp_path
