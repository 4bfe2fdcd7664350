"""Products on Kafka and on RabbitMQ: a broker that runs already, or the broker of a Compose file."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from chassis.dev.embedded import EmbeddedServerError, free_port

from fleet.errors import FleetError
from fleet.up import command
from fleet.up.compose import ComposeBroker, find_brokers
from fleet.up.memory import Memory
from fleet.up.product import select
from tests.fleet.command_line import completed
from tests.fleet.up.checkouts import checkout
from tests.support import brokers
from tests.support.commands import service_environment
from tests.support.pair import create_invoice, has_copy, write_pair
from tests.support.paths import ROOT
from tests.support.services import Render
from tests.support.waiting import wait_until

# These tests are in the group of the other tests that start brokers of their own.
ON_BROKERS = [pytest.mark.slow, pytest.mark.xdist_group("chaos")]


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=ON_BROKERS) for kind in ("kafka", "rabbitmq")])
def test_services_exchange_an_event_over_a_broker_that_is_named_by_its_url(
    kind: str, render: Render, tmp_path: Path
) -> None:
    config = write_pair(render, tmp_path, kind)

    def fleet(*arguments: str) -> subprocess.CompletedProcess[str]:
        return completed(*arguments, f"--config={config}")

    try:
        with brokers.BROKERS[kind]() as broker:
            up = ["up", "--detach", f"--broker-url={broker.url}", f"--config={config}"]
            environment = service_environment(PYTHONPATH=str(ROOT))
            started = subprocess.run(
                [sys.executable, "-m", "fleet", *up], env=environment, capture_output=True, text=True
            )
            try:
                assert started.returncode == 0, started.stdout + started.stderr
                status = json.loads(fleet("up", "--status", "--format", "json").stdout)
                assert status["addresses"][kind] == broker.url
                copied = create_invoice({one["name"]: one["url"] for one in status["services"]})
                wait_until(
                    lambda: has_copy(copied), lambda: [fleet("logs", name).stdout for name in ("billing", "ledger")]
                )
            finally:
                fleet("down")
    except brokers.Missing as reason:
        pytest.skip(str(reason))


ENGINE = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
*"config --services") echo service; echo kafka; echo "$COMPOSE_FILE" ;;
*" up "*) exec sleep 600 ;;
version|"compose version") exit {status} ;;
esac
"""


def write_engine(folder: Path, name: str, status: int = 0) -> Path:
    """Write a stand-in for a container engine, which has a Kafka in each Compose file."""
    program = folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(ENGINE.format(log=folder / "log", status=status))
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_the_broker_of_a_compose_file_is_found_where_an_engine_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("COMPOSE_FILE", "rabbitmq")
    write_engine(tmp_path, "docker", status=1)
    program = write_engine(tmp_path, name)
    services = [
        checkout(tmp_path / kind, f"on-{kind}", messaging_style="events", broker=kind) for kind in ("kafka", "rabbitmq")
    ]
    # no compose.yaml yet: Compose itself would look in the folders above
    assert find_brokers({"kafka"}, services, Memory(tmp_path)) == {}
    for one in services:
        (one.folder / "compose.yaml").touch()
    found = find_brokers({"kafka", "rabbitmq"}, services, Memory(tmp_path))
    assert {kind: (one.folder, one.program) for kind, one in found.items()} == {
        "kafka": (services[0].folder, str(program))
    }


def write_product_on_kafka(folder: Path) -> Path:
    """Write a product of one service, whose Kafka never answers. Return its fleet.toml."""
    write_engine(folder, "docker")
    one = checkout(folder / "orders", "orders")
    (one.folder / ".copier-answers.yml").write_text("service_name: orders\nmessaging_style: events\nbroker: kafka\n")
    (one.folder / "compose.yaml").touch()
    config = folder / "fleet.toml"
    config.write_text('[[service]]\npath = "orders"\n')
    return config


@pytest.mark.slow
def test_a_run_that_waits_for_the_container_of_a_broker_ends_by_ctrl_c(tmp_path: Path) -> None:
    config = write_product_on_kafka(tmp_path)
    environment = service_environment(PYTHONPATH=str(ROOT)) | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    run = subprocess.Popen([sys.executable, "-m", "fleet", "up", f"--config={config}"], env=environment)
    try:
        wait_until(lambda: " up --no-deps " in (tmp_path / "log").read_text() if (tmp_path / "log").exists() else False)
        run.send_signal(signal.SIGINT)
        run.wait(60)
    finally:
        run.kill()
        run.wait()


def test_a_start_of_a_broker_ends_when_the_run_gives_up(tmp_path: Path) -> None:
    write_engine(tmp_path, "docker")
    broker = ComposeBroker("kafka", tmp_path, str(tmp_path / "bin/docker"), "fleet-up-test")
    timer = threading.Timer(0.5, broker.give_up)
    timer.start()
    with pytest.raises(EmbeddedServerError, match=r"compose\.yaml was ended while it started"):
        broker.start(tmp_path / "logs/kafka.log", free_port(), free_port())
    timer.join()


def test_a_broker_without_url_and_engine_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    one = checkout(tmp_path / "orders", "orders", messaging_style="events", broker="kafka")
    (one.folder / ".copier-answers.yml").write_text("service_name: orders\nmessaging_style: events\nbroker: kafka\n")
    selection = select([one.folder], tmp_path / "fleet.toml")
    with pytest.raises(FleetError) as refused:
        command.up(command.Wanted(selection, Memory(tmp_path / ".fleet"), {}))
    assert str(refused.value).splitlines()[1:] == [
        "  orders needs kafka, which has no wheel: name a running one by --broker-url kafka://…, or start Docker or Podman, "
        "which run the kafka of its compose.yaml"
    ]
    assert not (tmp_path / ".fleet").exists()
