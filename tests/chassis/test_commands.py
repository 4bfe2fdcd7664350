"""The command line: what it writes, what it refuses, and the exit status that says which."""

import dataclasses
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chassis import embedded
from chassis.commands import main
from chassis.database import metadata_for
from chassis.service import Service
from chassis.settings import Settings

from tests.chassis.conftest import ask

OPENAPI = Path("specs/openapi.json")


@pytest.fixture(autouse=True)
def somewhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder, without any setting."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_specs_are_written_without_settings_and_then_fresh(service: Service) -> None:
    assert main(service, ["specs"]) == 0

    document = json.loads(OPENAPI.read_text())
    assert document["info"]["title"] == "tiny"
    assert "/v1/things" in document["paths"]
    assert not any(path.endswith("z") for path in document["paths"])  # probes are for the platform
    assert main(service, ["specs", "--check"]) == 0


def test_specs_are_the_same_bytes_every_time(service: Service) -> None:
    main(service, ["specs"])
    first = OPENAPI.read_bytes()
    main(service, ["specs"])

    assert OPENAPI.read_bytes() == first


@pytest.mark.parametrize("content", [None, "", "{}\n"])
def test_stale_specs_fail_the_check_say_how_to_refresh_and_stay(
    service: Service, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        OPENAPI.parent.mkdir()
        OPENAPI.write_text(content)

    assert main(service, ["specs", "--check"]) == 1

    assert "make specs" in capsys.readouterr().err
    assert (OPENAPI.read_text() if OPENAPI.exists() else None) == content


def test_specs_change_with_the_code(service: Service) -> None:
    main(service, ["specs"])

    assert main(dataclasses.replace(service, api_version="2.0.0"), ["specs", "--check"]) == 1


def test_migrate_brings_the_database_to_the_newest_revision(
    service: Service, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database)

    assert main(service, ["migrate"]) == 0
    assert ask(empty_database, "SELECT min(version_num) FROM tiny.alembic_version") == "0001"


def test_migrate_says_which_database_it_cannot_use_without_its_password(
    service: Service, empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody_there = f"postgresql://tiny:s3cret@127.0.0.1:{embedded.free_port()}/tiny"
    password = urlsplit(empty_database).password or ""
    for url in (nobody_there, empty_database.replace(password, "s3cret")):
        monkeypatch.setenv("DATABASE_URL", url)
        assert main(service, ["migrate"]) == 1

        said = capsys.readouterr()
        assert "the database in DATABASE_URL cannot be used" in said.err
        assert "s3cret" not in said.out + said.err
        assert "Traceback" not in said.err


@pytest.mark.slow
def test_migrate_check_needs_no_database_of_ours_and_fails_on_a_difference(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(service, ["migrate", "--check"]) == 0
    assert main(dataclasses.replace(service, tables=metadata_for("tiny")), ["migrate", "--check"]) == 1

    said = capsys.readouterr().err
    assert "things" in said
    assert "make migration" in said


@pytest.mark.parametrize(
    "arguments", [[], ["start"], ["serve", "now"], ["migrate", "--chek"], ["revision"], ["dev", "--port", "http"]]
)
def test_a_wrong_usage_is_refused_with_the_usage(
    service: Service, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(service, arguments)

    assert refused.value.code == 2
    assert "usage: python -m tests.chassis.tiny" in capsys.readouterr().err


def test_help_lists_every_command(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(service, ["--help"])

    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(command in said for command in ("serve", "migrate", "specs", "dev", "revision"))
