"""Pull and merge requests of `fleet update-all`, with stand-ins for gh and glab that record how they are called."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet.main import app
from fleet.service.fleet_toml import Member
from fleet.update.outcomes import Outcome
from fleet.update.requests import NO_HOST, requests

STAND_IN = f"""#!{sys.executable}
import json, pathlib, sys
folder, name, arguments = pathlib.Path(__file__).parent, pathlib.Path(__file__).name, sys.argv[1:]
with (folder / "log").open("a") as log:
    log.write(json.dumps([name, *arguments]) + "\\n")
if (folder / "fails").exists():
    sys.exit("HTTP 401: sign in first")
print((folder / f"{{name}}.{{arguments[1]}}").read_text())
"""

BRANCH = "slipway/v1.3.0"
DONE = Outcome("orders", "a" * 40, "v1.0.0", "v1.3.0", BRANCH, "main", "b" * 40, updated=True, tested=True, pushed=True)
MEMBERS = [
    Member("orders", "git@github.com:acme/orders.git"),
    Member("stock", "https://gitlab.com/acme/shop/stock.git"),
    Member("cart", "ssh://git@git.acme.example/acme/cart.git"),
]
OUTCOMES = [replace(DONE, name=one.name) for one in MEMBERS]
KINDS = {"git.acme.example": "gitlab"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both stand-ins, which are the only programs on PATH."""
    answers = {
        "gh.list": "[]",
        "gh.create": "https://github.com/acme/orders/pull/7",
        "glab.list": "[]",
        "glab.create": "Creating merge request\n\n!5 title (branch)\n https://gitlab.com/acme/shop/stock/-/merge_requests/5",
    }
    for name, text in answers.items():
        (tmp_path / name).write_text(text)
    for name in ("gh", "glab"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def calls(folder: Path) -> list[list[str]]:
    log = folder / "log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_without_the_option_commands_are_returned_and_no_program_is_called(folder: Path) -> None:
    github, gitlab, other = requests(MEMBERS, OUTCOMES, {}, is_asked=False)
    assert shlex.split(github.command)[:9] == [
        *("gh", "pr", "create", "--repo", "github.com/acme/orders", "--head", BRANCH, "--base", "main")
    ]
    assert "Update the template from v1.0.0 to v1.3.0" in shlex.split(github.command)
    assert shlex.split(gitlab.command)[:9] == [
        *("glab", "mr", "create", "--repo", "https://gitlab.com/acme/shop/stock"),
        *("--source-branch", BRANCH, "--target-branch", "main"),
    ]
    assert (other.command, other.problem) == ("", NO_HOST)
    assert calls(folder) == []


def test_a_request_is_opened_by_the_program_of_its_host_with_the_printed_command(folder: Path) -> None:
    github, gitlab, _ = requests(MEMBERS, OUTCOMES, KINDS, is_asked=True)
    assert (github.address, github.is_new) == ("https://github.com/acme/orders/pull/7", True)
    assert (gitlab.address, gitlab.is_new) == ("https://gitlab.com/acme/shop/stock/-/merge_requests/5", True)
    listed, created, *others = calls(folder)
    assert listed == [
        *("gh", "pr", "list", "--repo", "github.com/acme/orders", "--head", BRANCH),
        *("--state", "open", "--json", "url,isCrossRepository"),
    ]
    assert created == shlex.split(github.command)
    assert others[0] == [
        *("glab", "mr", "list", "--repo", "https://gitlab.com/acme/shop/stock"),
        *("--source-branch", BRANCH, "--output", "json"),
    ]
    assert others[1] == shlex.split(gitlab.command)
    assert others[2][4] == "https://git.acme.example/acme/cart"


def test_an_open_request_is_not_opened_again_and_a_request_of_a_fork_does_not_count(folder: Path) -> None:
    pulls = [(8, True), (9, False)]
    written = [
        {"url": f"https://github.com/acme/orders/pull/{number}", "isCrossRepository": is_fork}
        for number, is_fork in pulls
    ]
    (folder / "gh.list").write_text(json.dumps(written))
    fork = {"web_url": "https://gitlab.com/a/-/merge_requests/1", "source_project_id": 2, "target_project_id": 1}
    (folder / "glab.list").write_text(json.dumps([fork]))
    github, gitlab = requests(MEMBERS[:2], OUTCOMES[:2], {}, is_asked=True)
    assert (github.address, github.is_new) == ("https://github.com/acme/orders/pull/9", False)
    assert (gitlab.address, gitlab.is_new) == ("https://gitlab.com/acme/shop/stock/-/merge_requests/5", True)
    assert [call[2] for call in calls(folder)] == ["list", "list", "create"]


@pytest.mark.parametrize(
    ("break_", "reason"),
    [
        (
            lambda folder: (folder / "gh").unlink(),
            "gh is not installed: install it and sign in, or run the command elsewhere",
        ),
        (lambda folder: (folder / "fails").touch(), "gh pr list failed: HTTP 401: sign in first"),
        (lambda folder: (folder / "gh.list").write_text("<html>"), "gh pr list printed no list: update gh"),
        (lambda folder: (folder / "gh.list").write_text('[{"id": 1}]'), "gh pr list printed no list: update gh"),
        (
            lambda folder: (folder / "gh.create").write_text("https://evil.example/pull/7"),
            "gh printed no address at github.com: look there whether the request is open",
        ),
    ],
)
def test_a_program_that_fails_leaves_its_command_and_stops_no_other(
    folder: Path, break_: Callable[[Path], Any], reason: str
) -> None:
    break_(folder)
    github, gitlab, _ = requests(MEMBERS, OUTCOMES, {}, is_asked=True)
    assert (github.address, github.problem) == ("", reason)
    assert github.command.startswith("gh pr create ")
    assert gitlab.address or gitlab.problem.startswith("glab mr list failed")


def test_only_a_pushed_branch_of_a_done_service_gets_a_request(folder: Path) -> None:
    outcomes = [replace(OUTCOMES[0], failure="odd"), replace(OUTCOMES[1], pushed=False), replace(OUTCOMES[2], tip="")]
    assert requests(MEMBERS, outcomes, KINDS, is_asked=True) == []
    assert calls(folder) == []


def test_a_hostile_branch_and_version_stay_one_word_of_the_command(folder: Path) -> None:
    outcome = replace(DONE, base="--web; rm -rf ~", new="v1.3.0'$(touch taken)`")
    (request,) = requests(MEMBERS[:1], [outcome], {}, is_asked=True)
    assert calls(folder)[1] == shlex.split(request.command)
    assert "--web; rm -rf ~" in calls(folder)[1]


def test_a_path_without_a_remote_has_no_request(folder: Path, tmp_path: Path) -> None:
    member = Member("orders", str(tmp_path), is_local=True)
    assert requests([member], [DONE], {}, is_asked=True)[0].problem == NO_HOST


@pytest.mark.parametrize("options", [(), ("--push",), ("--push", "--open")])
def test_the_command_line_prints_commands_or_opens_requests_by_its_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    listed = "".join(f'[[service]]\nurl = "{one.address}"\n' for one in MEMBERS[:2])
    (folder / "fleet.toml").write_text(f'template = "{folder}"\n{listed}')
    monkeypatch.setattr("fleet.update.update_all.update_all", lambda members, *_: OUTCOMES[: len(members)])
    monkeypatch.setenv("COLUMNS", "120")
    command = ["update-all", "--config", str(folder / "fleet.toml"), "--report", str(folder / "r.html"), *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stderr == f"The report is in {folder / 'r.html'}\n"
    is_opened, is_printed = "--open" in options, options == ("--push",)
    assert bool(calls(folder)) == ("opened https://github.com/acme/orders/pull/7" in done.stdout) == is_opened
    assert ("gh pr create " in done.stdout) == is_printed
    page = (folder / "r.html").read_text()
    assert ('href="https://github.com/acme/orders/pull/7"' in page) == is_opened
    assert ("gh pr create --repo github.com/acme/orders" in page) == is_printed


def test_a_request_that_cannot_be_opened_is_status_1_and_open_needs_push(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "fleet.toml").write_text(f'template = "{folder}"\n[[service]]\nurl = "{MEMBERS[0].address}"\n')
    (folder / "fails").touch()
    monkeypatch.setattr("fleet.update.update_all.update_all", lambda *_: OUTCOMES[:1])
    command = ["update-all", "--config", str(folder / "fleet.toml"), "--open"]
    assert "add --push" in str(CliRunner().invoke(app, command).exception)
    done = CliRunner().invoke(app, [*command, "--push"])
    assert done.exit_code == 1
    assert "orders: gh pr list failed: HTTP 401: sign in first\n  gh pr create " in done.stdout
