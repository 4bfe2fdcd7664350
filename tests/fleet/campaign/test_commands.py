"""`fleet campaign` and `fleet nudge`, with stand-ins for gh and glab that record how they are called."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.check.findings import Finding
from fleet.check.standing import Standing
from tests.fleet.policy.announced import report

STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, sys
folder = pathlib.Path(__file__).parent
name, arguments = pathlib.Path(__file__).name, sys.argv[1:]
body = sys.stdin.read()
with (folder / "log").open("a") as log:
    log.write(json.dumps([name, *arguments, body]) + "\\n")
if (folder / "fails").exists():
    sys.exit("HTTP 401: sign in first")
if (folder / "unindexed").exists() and "in:title" in " ".join(arguments):
    sys.exit(print("[]"))
print((folder / "issues.json").read_text() if arguments[1] == "list" else "https://forge.example/issues/7")
"""

POLICY = """
[[campaign]]
name = "runbooks"
conventions = ["docs-runbook"]
by = 2027-03-11
"""

ADDRESSES = {
    "orders": "git@github.com:acme/orders.git",
    "stock": "https://gitlab.com/acme/shop/stock.git",
    "cart": "ssh://git@git.acme.example/acme/cart.git",
    "kept": "https://github.com/acme/kept.git",
}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a fleet of four services. Three of the services break a convention. Both stand-ins are on PATH."""
    listed = "".join(f'[[service]]\nurl = "{address}"\n' for address in ADDRESSES.values())
    (tmp_path / "fleet.toml").write_text(listed)
    (tmp_path / "policy.toml").write_text(POLICY)
    found = Finding("docs-runbook", "docs/runbook.md", "has no section", "write one", line=3)

    def standings(members: list[Any], jobs: int | None) -> list[Standing]:
        return [
            Standing(one.name, one.address, owner="@acme/shop", conventions=() if one.name == "kept" else (found,))
            for one in members
        ]

    monkeypatch.setattr("fleet.campaign.command.status", standings)
    monkeypatch.setenv("FLEET_TODAY", "2027-03-01")
    for name in ("gh", "glab"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "issues.json").write_text("[]")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")  # the cells of a narrow table fold
    monkeypatch.chdir(tmp_path)
    return tmp_path


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_the_campaigns_are_shown_and_a_day_that_is_over_is_status_1(fleet: Path) -> None:
    shown = report("campaign")
    assert shown.startswith("runbooks: keep docs-runbook, by 2027-03-11 (10 days left): 1 of 4 services done, 3 open\n")
    assert [line.split() for line in shown.splitlines()[2:]] == [
        *([name, "open", "@acme/shop", "docs-runbook"] for name in ("orders", "stock", "cart")),
        ["kept", "done", "@acme/shop"],
    ]
    assert json.loads(report("campaign", "--format", "json"))["campaigns"][0]["is_late"] is False
    assert report("campaign", "--output", str(fleet / "out.txt")) == ""
    assert (fleet / "out.txt").read_text() == shown
    assert "1 day late" in report("campaign", "runbooks", "--on", "2027-03-12", status=1)


def test_a_platform_without_campaigns_and_a_wrong_name_are_refused(fleet: Path) -> None:
    assert "there is no campaign 'runbok' (did you mean runbooks?)" in report("nudge", "runbok", status=1)
    (fleet / "policy.toml").write_text("")
    assert report("campaign", status=1) == "policy.toml has no campaign: write a [[campaign]] with name, by and a goal"


def test_the_texts_are_files_and_no_program_is_called(fleet: Path) -> None:
    assert report("nudge", "runbooks") == "nudges/runbooks/acme-shop.md: @acme/shop, 3 services\n"
    text = (fleet / "nudges/runbooks/acme-shop.md").read_text()
    assert text.startswith(
        "# Campaign runbooks: due 2027-03-11\n\n@acme/shop: please let these services keep docs-runbook"
    )
    assert not (fleet / "log").exists()


def test_an_issue_is_opened_in_each_repository_by_the_program_of_its_host(fleet: Path) -> None:
    (fleet / "fleet.toml").open("a").write('[forge]\n"git.acme.example" = "gitlab"\n')
    shown = report("nudge", "runbooks", "--open").splitlines()[1:]
    assert shown == [f"{name}: opened https://forge.example/issues/7" for name in ("orders", "stock", "cart")]
    newest, listed, opened = calls(fleet)[:3]
    search = ["--search", 'in:title "Campaign runbooks:"']
    start, end = ["gh", "issue", "list", "--repo", "github.com/acme/orders", "--state", "open"], ["title,url", ""]
    assert newest == [*start, "--limit", "100", "--json", *end]
    assert listed == [*start, *search, "--json", *end]
    assert opened[:-1] == [
        *("gh", "issue", "create", "--repo", "github.com/acme/orders"),
        *("--title", "Campaign runbooks: due 2027-03-11", "--body-file", "-"),
    ]
    assert opened[-1].startswith("@acme/shop: please let this service keep docs-runbook")
    assert "`stock`" not in opened[-1]
    listed, opened = calls(fleet)[3:5]
    assert listed[:7] == [
        "glab",
        "issue",
        "list",
        "--repo",
        "https://gitlab.com/acme/shop/stock",
        "--search",
        "Campaign runbooks:",
    ]
    assert opened[1:5] == ["issue", "create", "--repo", "https://gitlab.com/acme/shop/stock"]
    assert opened[opened.index("--description") + 1].startswith("@acme/shop: please")
    assert calls(fleet)[5][4] == "https://git.acme.example/acme/cart"


def test_an_issue_that_is_open_is_not_opened_again(fleet: Path) -> None:
    # GitHub finds words in any order, and the day of a campaign may change.
    others = {
        "title": "About Campaign runbooks:",
        "url": "https://forge.example/1",
        "web_url": "https://forge.example/1",
    }
    earlier = {
        "title": "Campaign runbooks: due 2027-01-01",
        "url": "https://forge.example/2",
        "web_url": "https://forge.example/3",
    }
    (fleet / "issues.json").write_text(json.dumps([others, earlier]))
    shown = report("nudge", "runbooks", "--open", status=1).splitlines()[1:]
    assert shown == [
        "orders: has an open issue: https://forge.example/2",
        "stock: has an open issue: https://forge.example/3",
        "cart: its address shows neither GitHub nor GitLab: name its host in [forge] of fleet.toml, or post the file",
    ]
    assert {call[2] for call in calls(fleet)} == {"list"}


def test_an_issue_that_github_has_not_indexed_yet_is_not_opened_again(fleet: Path) -> None:
    issue = {"title": "Campaign runbooks: due 2027-03-11", "url": "https://forge.example/2", "web_url": "-"}
    (fleet / "issues.json").write_text(json.dumps([issue]))
    (fleet / "unindexed").touch()
    assert report("nudge", "runbooks", "--open", status=1).splitlines()[1] == (
        "orders: has an open issue: https://forge.example/2"
    )


@pytest.mark.parametrize(
    ("break_", "reason"),
    [
        (
            lambda folder: (folder / "gh").unlink(),
            "gh is not installed: install it and sign in, or post the file by hand",
        ),
        (lambda folder: (folder / "fails").touch(), "gh issue list failed: HTTP 401: sign in first"),
        (
            lambda folder: (folder / "issues.json").write_text("<html>"),
            "gh issue list printed no list: update gh",
        ),
        (
            lambda folder: (folder / "issues.json").write_text('[{"id": 1}]'),
            "gh issue list printed no list: update gh",
        ),
    ],
)
def test_a_program_that_fails_is_reported_for_its_service_and_stops_no_other(
    fleet: Path, break_: Any, reason: str
) -> None:
    break_(fleet)
    shown = report("nudge", "runbooks", "--open", status=1).splitlines()
    assert shown[1] == f"orders: {reason}"
    assert shown[2].startswith("stock: ")


def test_a_text_that_is_no_unicode_is_sent_with_marks_in_its_place(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A lone surrogate, which JSON can contain, cannot be an argument of a program.
    found = Finding("docs-runbook", "docs/\udcff.md", "lifecycle is \ud800", "write one")
    monkeypatch.setattr(
        "fleet.campaign.command.status",
        lambda members, jobs: [Standing(one.name, one.address, conventions=(found,)) for one in members],
    )
    shown = report("nudge", "runbooks", "--open", status=1).splitlines()
    assert [line.partition(" ")[2] for line in shown[1:3]] == ["opened https://forge.example/issues/7"] * 2
    assert all("lifecycle is ?" in str(call) for call in calls(fleet) if call[2] == "create")


def test_nobody_is_asked_once_all_are_done(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report("nudge", "runbooks")
    monkeypatch.setattr("fleet.campaign.command.status", lambda members, jobs: [])
    assert report("nudge", "runbooks", "--open") == "runbooks: there is nobody to ask\n"
    assert list((fleet / "nudges/runbooks").iterdir()) == []
