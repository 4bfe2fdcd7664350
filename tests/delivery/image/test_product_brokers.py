"""`fleet up` of services on Kafka and on RabbitMQ: Docker Compose runs the broker, with the real brokers in stand-ins."""

import json
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.delivery.image import servers
from tests.delivery.image.project import keep_apart
from tests.support import base_image, brokers
from tests.support.commands import service_environment
from tests.support.engine import Engine
from tests.support.pair import write_pair
from tests.support.paths import ROOT
from tests.support.services import Render
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("image")]

EXCHANGE = """
import json, sys
from tests.support.pair import create_invoice, has_copy
from tests.support.waiting import wait_until

copied = create_invoice(json.loads(sys.argv[1]))
wait_until(lambda: has_copy(copied))
"""


@dataclass(frozen=True)
class Product:
    """Two services, and the engine in whose network `fleet up` runs them."""

    engine: Engine
    config: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = service_environment(PYTHONPATH=str(ROOT), PATH=self.engine.path)
        command = [*self.engine.enter, sys.executable, *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)

    def fleet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "fleet", *arguments, f"--config={self.config}")

    def containers(self) -> list[str]:
        """Return the containers that run for this product."""
        return self.engine.docker("ps", "--quiet", "--filter", "name=fleet-up-").stdout.split()

    def kill(self) -> None:
        """Kill `fleet up`, as kill -9 does."""
        wanted = {"up", f"--config={self.config}"}
        (run,) = [one for one in psutil.process_iter(["cmdline"]) if wanted <= {*(one.info["cmdline"] or ())}]
        run.kill()

    def exchange(self) -> None:
        """Send an event from one service to the other."""
        status: dict[str, Any] = json.loads(self.fleet("up", "--status", "--format", "json").stdout)
        urls = {one["name"]: one["url"] for one in status["services"]}
        done = self.run("-c", EXCHANGE, json.dumps(urls))
        assert done.returncode == 0, done.stderr + self.fleet("logs", "ledger").stdout


@pytest.fixture(scope="module")
def engine_with_base(apart: Engine, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    if apart.enter:
        base_image.load(apart.docker, tmp_path_factory.mktemp("engine"))
    return apart


@pytest.fixture(params=["kafka", "rabbitmq"])
def product(
    request: pytest.FixtureRequest, engine_with_base: Engine, render: Render, tmp_path: Path
) -> Generator[Product]:
    product = Product(engine_with_base, write_pair(render, tmp_path, request.param))
    if not engine_with_base.enter:
        keep_apart(tmp_path / "billing")
    services = yaml.safe_load((tmp_path / "billing/compose.yaml").read_text())["services"]
    try:
        servers.build(engine_with_base, {request.param: services[request.param]["image"]}, {})
    except brokers.Missing as reason:
        pytest.skip(str(reason))
    yield product
    product.fleet("down")


def test_the_broker_of_a_compose_file_runs_as_long_as_fleet_up_and_has_its_data_until_fresh(product: Product) -> None:
    for options in ([], ["--fresh"]):
        started = product.fleet("up", "--detach", *options)
        assert started.returncode == 0, started.stdout + started.stderr
        product.exchange()
        assert len(product.containers()) == 1
        if not options:
            assert product.fleet("down").returncode == 0
            assert product.containers() == []
    product.kill()
    wait_until(lambda: not product.containers(), product.containers)
