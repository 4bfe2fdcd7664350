"""`fleet impact` names each service that a change breaks, and where that service has written what it needs."""

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleet.check.findings import Level
from fleet.errors import FleetError
from fleet.impact import show
from fleet.impact.change import Change, State
from fleet.impact.impact import LONGEST_TEXT, MORE, MOST_OF_SERVICE, Breakage, Impact, breakages
from fleet.main import app
from fleet.map.facts import Facts, MapWaiver
from fleet.map.model import Map
from fleet.map.uses import misfits
from fleet.processes.resource_limits import LimitExceeded
from fleet.service.asyncapi import Message
from tests.fleet.map.provider import BREAKING, HARMLESS, Node, get, offered, schema, used
from tests.support.commands import git
from tests.support.paths import ROOT

JOINED = "customers.customer-joined.v1"
GREET = "customers.greet.v1"
TEXT = {"type": "string"}
BILLING = Facts("billing", uses={"customers": used()})


def calls(before: Node | None, now: Node, *others: Facts) -> list[Breakage]:
    customers = Facts("customers")
    return breakages(Change(State(customers, before), State(customers, now), Map(others or [BILLING])))


def reasons(found: list[Breakage]) -> list[str]:
    return [one.finding.reason for one in found]


@pytest.mark.parametrize("change", HARMLESS)
def test_a_change_that_no_caller_notices_breaks_nobody(change: str) -> None:
    HARMLESS[change](now := copy.deepcopy(offered()))
    assert calls(offered(), now) == []


@pytest.mark.parametrize("change", BREAKING)
def test_a_breaking_change_names_the_caller_its_file_and_the_field(change: str) -> None:
    edit, reason = BREAKING[change]
    edit(now := copy.deepcopy(offered()))
    found = calls(offered(), now)
    assert {(one.service, one.by, one.path) for one in found} == {("billing", "HTTP", "specs/uses/customers.json")}
    assert {(one.finding.path, one.finding.level) for one in found} == {("specs/openapi.json", Level.ERROR)}
    assert any(reason in one for one in reasons(found)), reasons(found)


def test_a_caller_that_was_broken_before_the_change_is_not_named_again() -> None:
    get(before := offered())["parameters"].pop(1)
    now = copy.deepcopy(before)
    now["info"]["version"] = "2"
    assert calls(before, now) == []
    schema(now, "Customer")["properties"]["id"] = {"type": "integer"}
    assert all("id" in one for one in reasons(calls(before, now)))
    assert calls(before, now)


def test_a_caller_breaks_that_knows_the_service_by_the_name_of_an_api_that_the_change_removes() -> None:
    now = copy.deepcopy(offered())
    now["paths"].clear()
    before = State(Facts("customers", apis={"crm": "openapi"}), offered())
    change = Change(before, State(Facts("customers"), now), Map([Facts("billing", uses={"crm": used()})]))
    assert {(one.service, one.path) for one in breakages(change)} == {("billing", "specs/uses/crm.json")}


def test_a_waiver_of_the_caller_lets_the_change_pass() -> None:
    get(now := offered())["parameters"].pop(1)
    waived = Facts("billing", uses={"customers": used()}, waivers=(MapWaiver("map-call-unfit", "9999-12-31", "moves"),))
    assert {one.finding.level for one in calls(offered(), now, waived)} == {Level.WAIVED}


def test_a_caller_without_a_comparable_document_is_a_warning_at_each_change() -> None:
    now = copy.deepcopy(offered())
    now["info"]["version"] = "2"
    broken = Facts("billing", uses={"customers": {"openapi": "3.1.0", "paths": 1}})
    assert [one.finding.level for one in calls(offered(), now, broken)] == [Level.WARNING]
    assert calls(offered(), offered(), broken) == []


def hostile(number: int) -> Facts:
    """A caller with control characters, line breaks and long names in all that it commits."""
    paths = {f"/\x1b[2J\n::error::{n}{'x' * 2000}": {"get": {"responses": {}}} for n in range(number)}
    return Facts("\n::error::\x1b[2J" + "y" * 2000, uses={"customers": {"openapi": "3.1.0", "paths": paths}})


def test_a_hostile_caller_is_shown_in_lines_of_bounded_length_and_number() -> None:
    found = calls({}, offered(), hostile(MOST_OF_SERVICE + 5))
    assert len(found) == MOST_OF_SERVICE + 1
    assert found[-1].finding.reason == MORE
    impact = Impact("customers", True, ("billing",), {}, found)
    assert "\x1b[2J" not in show.table(impact)
    assert all(len(one.service) <= LONGEST_TEXT + 1 and "\n" not in one.service for one in found)
    assert all(len(one.finding.reason) <= LONGEST_TEXT + 1 and "\n" not in one.finding.reason for one in found)
    assert not any(line.startswith("::") for line in show.table(impact).splitlines())
    assert all(line.startswith("::error file=specs/openapi.json") for line in show.github(impact).splitlines())


def body(*names: str, **properties: Any) -> dict[str, Any]:
    properties |= dict.fromkeys(names, TEXT)
    return {"type": "object", "properties": properties, "required": [*names]}


def test_a_caller_that_takes_too_long_to_compare_is_a_warning_and_hides_no_other_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def limited(used: Any, *others: Any) -> Any:
        if "title" not in used["info"]:
            raise LimitExceeded("comparing the calls of slow takes too long")
        return misfits(used, *others)

    monkeypatch.setattr("fleet.impact.impact.misfits", limited)
    get(now := offered())["parameters"].pop(1)
    found = calls(offered(), now, Facts("slow", uses={"customers": {"info": {}}}), BILLING)
    assert [(one.service, one.finding.level) for one in found] == [("billing", Level.ERROR), ("slow", Level.WARNING)]


def event(schema: Node, *, sent: bool) -> Message:
    return Message(JOINED, "event", sent, not sent, 7, schema if sent else None, {} if sent else schema)


def job(schema: Node, *, sent: bool) -> Message:
    return Message(GREET, "job", sent, not sent, 9, None if sent else schema, schema if sent else {})


def messages(before: Message | None, now: Message | None, other: Message) -> list[Breakage]:
    states = [State(Facts("customers", (one,) if one else ())) for one in (before, now)]
    return breakages(Change(*states, Map([Facts("billing", (other,))])))


def test_a_listener_breaks_by_a_field_that_the_event_loses() -> None:
    before, now = event(body("id", "name"), sent=True), event(body("id"), sent=True)
    assert messages(before, now, event(body("id"), sent=False)) == []
    [one] = messages(before, now, event(body("name"), sent=False))
    assert (one.service, one.by, one.path, one.line) == ("billing", "message", "specs/asyncapi.json", 7)
    assert (one.finding.id, one.finding.level) == ("map-event-unfit", Level.ERROR)
    assert one.finding.path == f"specs/messages/{JOINED}.json"
    assert "name is required, and is not sent" in one.finding.reason


def test_only_the_new_part_of_a_misfit_is_named() -> None:
    listener = event(body("id", "name"), sent=False)
    before, now = event(body("id"), sent=True), event(body(), sent=True)
    [one] = messages(before, now, listener)
    assert "id is required" in one.finding.reason
    assert "name" not in one.finding.reason
    assert messages(before, event(body("id", "more"), sent=True), listener) == []


def test_a_listener_breaks_by_an_event_that_is_no_longer_published() -> None:
    [one] = messages(event(body("id"), sent=True), None, event(body("id"), sent=False))
    assert (one.service, one.by, one.path, one.line) == ("billing", "message", "specs/asyncapi.json", 7)
    assert one.finding.reason == f"billing listens to {JOINED}, which customers no longer publishes"
    assert messages(None, None, event(body("id"), sent=False)) == []


def test_a_sender_of_a_job_breaks_by_a_new_required_field_and_by_a_job_that_is_no_longer_processed() -> None:
    sender = job(body("id"), sent=True)
    [one] = messages(job(body("id"), sent=False), job(body("id", "name"), sent=False), sender)
    assert (one.service, one.finding.id, one.path, one.line) == ("billing", "map-job-unfit", "specs/asyncapi.json", 9)
    [one] = messages(job(body("id"), sent=False), None, sender)
    assert one.finding.reason == f"billing sends {GREET}, which customers no longer processes"


def test_the_receiver_of_a_job_breaks_by_a_field_that_the_sender_leaves_out() -> None:
    before, now = job(body("id", "name"), sent=True), job(body("id"), sent=True)
    [one] = messages(before, now, job(body("name"), sent=False))
    assert (one.service, one.path, one.line) == ("billing", f"specs/messages/{GREET}.json", 0)
    assert (one.finding.path, one.finding.line) == ("specs/asyncapi.json", 9)


def test_a_service_breaks_no_publisher_by_its_own_expectations() -> None:
    before, now = event(body("id"), sent=False), event(body("id", "name"), sent=False)
    assert messages(before, now, event(body("id"), sent=True)) == []


def test_a_service_that_nobody_uses_has_no_impact_and_the_summary_names_a_missing_entry() -> None:
    told = "no service of fleet.toml uses customers, and fleet.toml does not list customers: the change has no impact"
    assert show.summary(Impact("customers", False, (), {}, [])) == told


def write(folder: Path, files: dict[str, str], name: str = "") -> Path:
    """Commit files of a service that has this name, or the name of its folder."""
    answers = f"_commit: v1.0.0\n_src_path: nowhere\nservice_name: {json.dumps(name or folder.name)}\n"
    for path, text in {".copier-answers.yml": answers, **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Start")
    return folder


def document(content: Node) -> str:
    return json.dumps(content, indent=2) + "\n"


def write_config(folder: Path, *names: str) -> None:
    (folder / "platform").mkdir()
    services = (f'[[service]]\npath = "../{name}"\n' for name in names or ("customers",))
    (folder / "platform/fleet.toml").write_text("".join(services))


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A fleet of customers, two callers and a missing folder. Only billing has expectations; orders has a hostile name."""
    write(tmp_path / "customers", {"specs/openapi.json": document(offered())})
    # The file starts with empty lines, as a person may format it: line numbers have to come from the file.
    write(tmp_path / "billing", {"specs/uses/customers.json": "\n\n" + document(used())})
    catalog = "kind: Component\nspec:\n  consumesApis: [customers]\n"
    write(tmp_path / "orders", {"catalog-info.yaml": catalog}, "orders\x1b[2J\n::error::evil")
    names = ("customers", "billing", "orders", "absent")
    write_config(tmp_path, *names)
    return tmp_path


def run(fleet: Path, *arguments: str, name: str = "customers") -> Result:
    config = ["--config", str(fleet / "platform/fleet.toml")]
    return CliRunner().invoke(app, ["impact", str(fleet / name), *config, *arguments], env={"COLUMNS": "200"})


def test_the_commands_of_the_page_name_the_broken_caller(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get(now := offered())["parameters"].pop(1)
    (fleet / "customers/specs/openapi.json").write_text(document(now))
    for branch in ("main", "v2"):
        git(fleet / "customers", "update-ref", f"refs/remotes/origin/{branch}", "HEAD")
    monkeypatch.chdir(fleet / "customers")
    page = (ROOT / "docs/how-to/see-whom-a-change-breaks.md").read_text()
    commands = page.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert len(commands) == 2
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command, comments=True)[1:])
        assert done.exit_code == 1, done.output
        assert "the change breaks 1 of 1 service" in done.stdout


@pytest.mark.slow
def test_the_command_names_file_and_line_in_each_format_and_fails_if_a_service_breaks(fleet: Path) -> None:
    harmless = run(fleet, "--base", "HEAD")
    assert harmless.exit_code == 0, harmless.output
    told = " ".join(harmless.stdout.split())
    assert "not compared: orders\\x1b[2J ::error::evil: calls customers without specs/uses" in told
    assert "not compared: absent: cannot be read: there is no folder" in told
    assert "the change breaks 0 of 1 service with known expectations of customers" in told
    get(now := offered())["parameters"].pop(1)
    (fleet / "customers/specs/openapi.json").write_text(document(now))
    table = run(fleet, "--base", "HEAD")
    line = next(
        number
        for number, text in enumerate((fleet / "billing/specs/uses/customers.json").read_text().splitlines(), 1)
        if '"get": {' in text
    )
    assert table.exit_code == 1
    assert f"specs/uses/customers.json:{line}" in table.stdout
    found = json.loads(run(fleet, "--base", "HEAD", "--format", "json").stdout)
    assert [(one["service"], one["line"]) for one in found["broken"]] == [("billing", line)]
    assert found["compared"] == ["billing"]
    annotation, unknown, *_ = run(fleet, "--base", "HEAD", "--format", "github").stdout.splitlines()
    assert annotation.startswith("::error file=specs/openapi.json,line=")
    assert f"billing breaks by HTTP (specs/uses/customers.json:{line}): GET" in annotation
    assert unknown.startswith("::warning title=impact-unknown::")
    assert "\x1b" not in unknown
    # After the commit, there is no change left to judge.
    git(fleet / "customers", "commit", "--quiet", "--all", "--message", "Remove a parameter")
    assert run(fleet, "--base", "HEAD").exit_code == 0
    assert run(fleet, "--base", "HEAD~1").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "has no remote branch to compare with: name the commit before the change by --base"),
        (("--base", "nowhere"), "has no commit nowhere to compare with: fetch it, or name another base"),
        (("--base", "HEAD", "--config", "absent.toml"), "absent.toml does not exist: write one"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    write(tmp_path / "customers", {})
    write_config(tmp_path)
    result = run(tmp_path, *arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, FleetError)
    assert told in str(result.exception)


def test_a_document_that_the_working_copy_lacks_or_breaks_is_an_error_that_a_change_can_repair(fleet: Path) -> None:
    (fleet / "customers/specs/openapi.json").write_text("{")
    assert "specs/openapi.json is not JSON" in str(run(fleet, "--base", "HEAD").exception)
    git(fleet / "customers", "commit", "--quiet", "--all", "--message", "Break the document")
    (fleet / "customers/specs/openapi.json").unlink()
    assert "is missing, and other services use the API" in str(run(fleet, "--base", "HEAD").exception)
    (fleet / "customers/specs/openapi.json").write_text(document(offered()))
    messages = fleet / "customers/src/customers/messaging/customers.py"
    messages.parent.mkdir(parents=True)
    messages.write_text("OUTGOING = [Publish()]\n")
    assert "the code has messages, and specs/asyncapi.json is missing" in str(run(fleet, "--base", "HEAD").exception)
    messages.unlink()
    repaired = run(fleet, "--base", "HEAD")
    assert repaired.exit_code == 0
    assert "customers at the base: cannot be read, so what broke before the change is not known" in repaired.stdout


def test_a_folder_outside_of_a_repository_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "customers").mkdir()
    result = run(tmp_path)
    assert result.exit_code == 1
    assert isinstance(result.exception, FleetError)
    assert str(tmp_path / "customers") in str(result.exception)
