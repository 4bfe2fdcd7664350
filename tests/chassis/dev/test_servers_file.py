"""Commands find the servers of `make dev`, and say so if `make dev` does not run."""

import os
import socket
import stat
from collections.abc import Generator
from pathlib import Path

import pytest
from chassis.commands import main
from chassis.dev import servers_file
from chassis.service import Service


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "BROKER_URL", "OIDC_ISSUER", "OIDC_AUDIENCE"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores the earlier state, whatever the test sets
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def port() -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("before", [None, ""])
def test_a_command_uses_the_servers_of_make_dev(port: int, before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if before is not None:
        monkeypatch.setenv("DATABASE_URL", before)
    written = {"DATABASE_URL": f"postgresql://u:a=b@127.0.0.1:{port}/x", "BROKER_URL": f"nats://127.0.0.1:{port}"}
    written |= {"OIDC_ISSUER": f"http://127.0.0.1:{port}/development-issuer", "OIDC_AUDIENCE": "billing"}
    servers_file.write(written)
    servers_file.use()
    assert {name: os.environ[name] for name in written} == written
    assert stat.S_IMODE(servers_file.FILE.stat().st_mode) == 0o600


def test_the_database_of_the_environment_comes_first(
    service: Service, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    servers_file.write({"DATABASE_URL": f"postgresql://u:p@127.0.0.1:{port}/x"})
    monkeypatch.setenv("DATABASE_URL", "elsewhere")
    assert main(service, ["migrate"]) == 2
    assert "DATABASE_URL: must look like postgresql://" in capsys.readouterr().err


def test_without_make_dev_a_command_names_the_remedy(
    service: Service, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    servers_file.use()
    assert main(service, ["migrate"]) == 2
    assert "DATABASE_URL: is not set" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as closed:
        ended = closed.getsockname()[1]
    servers_file.write({"DATABASE_URL": f"postgresql://u:p@127.0.0.1:{ended}/x"})
    assert main(service, ["migrate"]) == 2
    assert "Start `make dev` in another terminal, or set DATABASE_URL" in capsys.readouterr().err
