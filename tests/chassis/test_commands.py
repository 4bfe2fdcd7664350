"""The command line: its output, its refusals, and its exit statuses."""

import dataclasses
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chassis.commands import main
from chassis.database import Database, metadata_for
from chassis.dev import embedded, servers_file
from chassis.identity import Oidc, OidcSettings
from chassis.service import Service
from chassis.settings import Settings
from pydantic import HttpUrl

from tests.support.query import ask

OPENAPI = Path("specs/openapi.json")


@pytest.fixture(autouse=True)
def somewhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder, without any setting."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.slow
def test_specs_are_written_without_settings_and_then_fresh(service: Service) -> None:
    assert main(service, ["specs"]) == 0

    document = json.loads(OPENAPI.read_text())
    assert document["info"]["title"] == "tiny"
    assert "/v1/things" in document["paths"]
    # The document has no probes, which are for the platform.
    assert not any(path.endswith("z") for path in document["paths"])
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


def test_migrate_names_a_database_that_cannot_be_used_without_its_password(
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


def test_serve_refuses_a_descriptor_that_is_no_socket(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/unused")
    with (tmp_path / "file").open("w") as file:
        monkeypatch.setenv("HTTP_FD", str(file.fileno()))
        assert main(service, ["serve"]) == 2
        assert f"HTTP_FD: {file.fileno()} is no socket of this process" in capsys.readouterr().err


@pytest.mark.parametrize(
    "issuers",
    [
        "http://127.0.0.1:5/development-issuer",
        "http://127.0.0.1:5/development-issuer/",
        "http://127.0.0.1:5/development-issuer https://login.example.com",
    ],
)
def test_no_setting_has_serve_trust_the_issuer_of_make_dev(
    service: Service, issuers: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/unused")
    monkeypatch.setenv("OIDC_ISSUER", issuers)
    monkeypatch.setenv("OIDC_AUDIENCE", "tiny")
    monkeypatch.setattr("chassis.web.server.serve", lambda app: pytest.fail("the service was started"))
    guarded = dataclasses.replace(service, settings=type("Guarded", (OidcSettings, Settings), {}), auth=Oidc())
    assert main(guarded, ["serve"]) == 2
    assert "OIDC_ISSUER: http://127.0.0.1:5/development-issuer" in capsys.readouterr().err


class SettingsOfAService(Settings):
    customers_url: HttpUrl


def test_only_commands_that_need_a_setting_without_a_default_fail_if_the_setting_is_missing(
    service: Service, empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = dataclasses.replace(service, settings=SettingsOfAService)
    monkeypatch.setenv("DATABASE_URL", empty_database)
    monkeypatch.setenv("HTTP_PORT", "none")

    assert [main(ours, command) for command in (["migrate"], ["parked", "list"], ["specs"])] == [0, 0, 0]
    capsys.readouterr()
    assert main(ours, ["serve"]) == 2
    said = capsys.readouterr().err
    assert "CUSTOMERS_URL: is not set" in said
    assert "HTTP_PORT" in said


# For each setting: values that are no URLs, and URLs that lead nowhere.
UNUSABLE = {
    "DATABASE_URL": [
        "{url}?sslmode=bogus",
        "{url}?sslmode=verify-full&sslrootcert=/nowhere.pem",
        "{url}?sslmode=require&sslcert=/nowhere.pem&sslkey=/nowhere.key",
        "{url}?sslmode=require",
        "{url}?target_session_attrs=bogus",
        "{url}?nonsense=1",
        "{url}?port=none",
        "{url}?target_session_attrs=standby",
        "postgresql://tiny:s3cret@127.0.0.1:1,/tiny",
        "{url}_is_not_there",
        "postgresql://tiny:s3cret@127.0.0.1:0/tiny",
        "postgresql://tiny:s3cret@127.0.0.1:70000/tiny",
        "postgresql://tiny:s3cret@nowhere.invalid/tiny",
        "postgresql://tiny:s3cret@/tiny?host=/nowhere",
        "postgresql://",
    ],
    "PGSSLMODE": ["bogus"],
    "PGTARGETSESSIONATTRS": ["bogus"],
}


@pytest.mark.parametrize("command", [["migrate"], ["parked", "list"]])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in UNUSABLE.items() for value in values])
def test_a_database_that_cannot_be_reached_is_reported_in_one_sentence(
    service: Service,
    postgres_url: str,
    command: list[str],
    name: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.setenv(name, value.format(url=postgres_url))

    assert main(service, command) in (1, 2)

    said = capsys.readouterr()
    assert said.err.startswith("tiny")
    assert "Traceback" not in said.err + said.out
    assert not {"s3cret", urlsplit(postgres_url).password} & {*re.split(r"\W", said.err + said.out)}


@pytest.mark.slow
def test_migrate_check_needs_no_database_of_ours_and_fails_on_a_difference(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    # A killed `make dev` leaves such a file: nothing listens at this address.
    servers_file.write({"DATABASE_URL": f"postgresql://tiny:s3cret@127.0.0.1:{embedded.free_port()}/tiny"})
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


@pytest.mark.parametrize(
    ("command", "answer"),
    [("parked", "a messaging_style"), ("shell", "`shell` in the answer chassis_parts")],
)
def test_a_command_that_the_answers_leave_out_is_refused_and_the_missing_answer_is_named(
    service: Service,
    command: str,
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("chassis.discovery._CHASSIS", tmp_path)
    with pytest.raises(SystemExit):
        main(service, [command])
    said = capsys.readouterr().err
    assert f"invalid choice: '{command}'" in said
    assert answer in said
    assert "fleet update -d" in said
    with pytest.raises(SystemExit):
        main(service, ["--help"])
    assert command not in capsys.readouterr().out


async def name_a_thing(database: Database) -> None:
    """Make one thing."""
    async with database.unit_of_work() as uow:
        await uow.connection.execute("INSERT INTO tiny.things (id, name) VALUES (gen_random_uuid(), 'by command')")


async def fail_after_a_change(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await uow.connection.execute("INSERT INTO tiny.things (id, name) VALUES (gen_random_uuid(), 'never')")
        raise RuntimeError("the printer is on fire")


def test_a_command_of_the_services_own_runs_on_its_database_and_ends_with_its_outcome(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("RUN_WORKER", "true")  # a command sends no messages
    ours = dataclasses.replace(service, commands={"name-a-thing": name_a_thing, "fail": fail_after_a_change})
    try:
        assert [main(ours, ["name-a-thing"]), main(ours, ["fail"])] == [0, 1]
        assert ask(database_url, "SELECT string_agg(name, ',') FROM tiny.things") == "by command"
    finally:
        ask(database_url, "DELETE FROM tiny.things")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(line["event"], line["command"]) for line in lines] == [
        ("command_succeeded", "name-a-thing"),
        ("command_failed", "fail"),
    ]
    assert "the printer is on fire" in json.dumps(lines[1])


def test_a_command_of_the_services_own_needs_the_settings_of_the_service(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(dataclasses.replace(service, commands={"name-a-thing": name_a_thing}), ["name-a-thing"]) == 2
    assert "DATABASE_URL: is not set" in capsys.readouterr().err


def test_a_command_with_the_name_of_one_of_the_chassis_is_refused(service: Service) -> None:
    with pytest.raises(ValueError, match="the command 'serve' of tiny is one of the chassis too: give it another name"):
        main(dataclasses.replace(service, commands={"serve": name_a_thing}), ["serve"])


def test_help_lists_every_command(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(dataclasses.replace(service, commands={"name-a-thing": name_a_thing}), ["--help"])

    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(command in said for command in ("serve", "migrate", "specs", "dev", "revision"))
    assert re.search("name-a-thing +Make one thing.", said)
