"""The page about `fleet up`: its commands are understood, and its entry of fleet.toml is read. test_running.py runs the commands."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet.errors import FleetError
from fleet.main import app
from fleet.service.fleet_toml import members
from fleet.up.command import brokers, receiver
from tests.fleet.up.checkouts import write_checkout
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/how-to/run-the-product.md").read_text()


def test_every_command_of_the_page_has_its_options() -> None:
    written = re.findall(r"`(fleet [^`]+)`|^(fleet [^#\n]+)", PAGE, re.MULTILINE)
    commands = [shlex.split(one or other) for one, other in written]
    for _, name, *arguments in commands:
        app.commands[name].make_context(name, arguments)
    assert {"up", "down", "logs", "stop", "start", "restart"} <= {command[1] for command in commands}
    options = {word for command in commands for word in command if word.startswith("--")}
    assert {"--only", "--detach", "--status", "--fresh", "--broker-url", "--follow", "--keep", "--around"} <= options
    assert brokers(["kafka://127.0.0.1:9092", "amqps://there"]).keys() == {"kafka", "rabbitmq"}


def test_a_detached_run_has_no_password_of_a_broker_among_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], str]] = []

    class Program:
        def __init__(self, arguments: list[str], *, env: Mapping[str, str], **_: Any) -> None:
            started.append((arguments, env["FLEET_BROKER_URL"]))

        def poll(self) -> int:
            return 1

    monkeypatch.setattr("fleet.up.command.subprocess.Popen", Program)
    write_checkout(tmp_path / "orders", "orders", messaging_style="events", broker="kafka")
    url = "kafka://me:secret@127.0.0.1:9092"
    arguments = ["up", str(tmp_path / "orders"), f"--config={tmp_path / 'fleet.toml'}", "--detach"]
    for given, environment in (([f"--broker-url={url}"], {}), ([], {"FLEET_BROKER_URL": url})):
        CliRunner().invoke(app, [*arguments, *given], env=environment)
        command, passed = started.pop()
        assert "secret" not in " ".join(command)
        assert passed == url


def test_the_entry_of_the_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(PAGE.partition("```toml\n")[2].partition("```")[0])
    assert members(tmp_path / "fleet.toml")[0].settings.keys() == {"CARRIER_URL", "CARRIER_KEY"}


def test_another_receiver_is_named_by_its_base_url(tmp_path: Path) -> None:
    assert receiver("https://traces.example/otlp/") == "https://traces.example/otlp"
    for wrong in ("127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://", "http://[::1"):
        with pytest.raises(FleetError, match="has to be the base URL of an OTLP/HTTP receiver"):
            receiver(wrong)
