"""The output of the commands, by format: `fleet check`, and `fleet status` without HTML."""

import errno
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet.cache import write_atomically
from fleet.check import check as checking
from fleet.check import show as show_findings
from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.main import app
from fleet.output import visible
from fleet.status import show as overview
from fleet.update import show
from fleet.update.outcomes import Outcome
from fleet.update.report import Report
from tests.fleet.command_line import completed
from tests.fleet.distribution import Installed
from tests.fleet.services import Born, commit
from tests.support.commands import git

HOSTILE = Finding(
    "http-paths",
    "src/a,b:c.py",
    "50% of it\r\nis ::wrong::",
    'begin with "/v1"',
    line=7,
    why="A path that says its version can be changed without breaking who calls it.",
)
WAIVED = Finding("http-pages", "specs/openapi.json", "waived for now", "", Level.WAIVED)
SOON = Finding("waiver-expiring", "conventions.yml", "expires soon", "renew it", Level.WARNING)
EDITED = Finding("drift-edited", "ruff.toml", "edited, though the platform owns it", "`fleet update` restores it")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def standings() -> list[Standing]:
    return [
        Standing(
            "billing | <b>`x`</b>",
            "git@git.example.com:shop/billing.git",
            commit="a" * 40,
            version="v1.0.0",
            newest="v1.2.0",
            releases_behind=2,
            days_behind=40,
            waivers={"live": 1, "expiring": 1, "void": 0},
            platform=(EDITED, SOON),
            conventions=(HOSTILE, WAIVED),
        ),
        Standing("orders", "/srv/orders", commit="b" * 40, version="v1.2.0", newest="v1.2.0", waivers={}),
        Standing("gone", "/srv/gone", unreadable="there is no folder\n/srv/gone"),
    ]


def test_github_shows_each_finding_at_its_line_with_nothing_that_ends_the_command_early() -> None:
    written = show_findings.github([HOSTILE, SOON, WAIVED])
    assert written.splitlines() == [
        "::error file=src/a%2Cb%3Ac.py,line=7,title=http-paths::50%25 of it%0D%0Ais ::wrong::%0A"
        'Do: begin with "/v1"%0AA path that says its version can be changed without breaking who calls it.',
        "::warning file=conventions.yml,title=waiver-expiring::expires soon%0ADo: renew it",
        "::notice file=specs/openapi.json,title=http-pages::waived for now",
    ]


def of_billing(*findings: Finding) -> checking.Report:
    return checking.Report("billing", "v1.0.0", list(findings))


def test_the_table_says_once_why_a_convention_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    show_findings.table(of_billing(HOSTILE, HOSTILE, EDITED))
    shown = capsys.readouterr().out
    assert shown.count("http-paths: A path that says its version") == 1
    assert "drift-edited:" not in shown


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_check_of_one_service_in_each_format(born: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    service = born(version="v1.3.0")
    monkeypatch.chdir(service)
    check = partial(completed, "check")
    git(service, "branch", "before")
    (service / "ruff.toml").write_text("line-length = 80\n")
    commit(service)
    table = check("--drift")
    assert (table.returncode, {"drift-edited", "ruff.toml:"} <= set(table.stdout.split())) == (1, True)
    written = check("--drift", "--format", "json")
    assert written.returncode == 1
    shown = json.loads(written.stdout)
    assert (shown["service"], shown["version"]) == ("billing", "v1.3.0")
    assert [(one["id"], one["path"], one["level"]) for one in shown["findings"]] == [
        ("drift-edited", "ruff.toml", "error")
    ]
    assert "since" not in written.stdout
    annotated = check("--drift", "--format", "github")
    assert annotated.returncode == 1
    assert annotated.stdout.startswith("::error file=ruff.toml,title=drift-edited::edited, though the platform owns it")
    nothing = check("--drift", "--format", "github", "--ref", "before")
    assert (nothing.returncode, nothing.stdout) == (0, "no findings\n")
    clean = check("--drift", "--format", "json", "--ref", "before", "--base", "before")
    assert (clean.returncode, json.loads(clean.stdout)["findings"]) == (0, [])
    missing = check("--base", "nowhere")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no commit nowhere to compare with: fetch it, or name another base" in missing.stderr


def test_the_overview_as_a_table() -> None:
    lines = overview.table(standings(), width=160).splitlines()
    assert lines[0].split() == ["service", "state", "version", "behind", "drift", "conventions", "map", "waivers"]
    cells = " ".join(lines[1].split())
    assert cells.startswith("billing | <b>`x`</b> breach v1.0.0 2 releases, 40 days 1 edited http-paths, (http-pages)")
    assert lines[2].split() == ["orders", "in", "order", "v1.2.0"]
    assert lines[-1] == "3 services: 1 in order, 1 breach, 1 unreadable"
    assert "gone cannot be read: there is no folder" in lines


def test_the_overview_as_markdown_has_one_row_for_each_service_with_any_name() -> None:
    text = overview.markdown(standings(), graph="```mermaid\ngraph LR\n```")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert rows[2].startswith(r"| billing \| \<b\>\`x\`\</b\> | breach | v1.0.0 | 2 releases, 40 days | 1 edited |")
    assert r"- error, http-paths: src/a,b:c.py:7: 50% of it is ::wrong::. *begin with " in text
    assert "**gone** cannot be read: there is no folder /srv/gone" in text
    assert "http-pages:" not in text
    assert text.endswith("```mermaid\ngraph LR\n```\n")


def test_the_overview_as_json_holds_the_derived_values_that_programs_need() -> None:
    written = json.loads(overview.as_json(standings()))
    assert written["summary"] == {"services": 3, "in order": 1, "warning": 0, "breach": 1, "unreadable": 1}
    billing, orders, gone = written["services"]
    assert (billing["state"], orders["state"], gone["state"]) == ("breach", "in order", "unreadable")
    assert (billing["drift"], billing["conventions_failed"]) == ({"edited": 1}, ["http-paths"])
    assert billing["conventions_waived"] == ["http-pages"]
    assert billing["conventions"][0]["line"] == 7


def test_in_a_narrow_terminal_conventions_are_counted_and_in_a_wide_terminal_named() -> None:
    narrow, wide = (overview.table(standings(), width=width) for width in (80, 200))
    assert "1 failed" in narrow
    assert "http-paths" not in narrow
    assert "http-paths, (http-pages)" in wide


@pytest.mark.slow
def test_a_pipe_gets_no_folded_lines(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "fleet.toml").write_text('[[service]]\npath = "."\nname = "' + "long-" * 24 + '"\n')
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-m", "fleet", "status"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert f"{'long-' * 24}  unreadable" in done.stdout


def test_a_finding_in_a_pipe_is_one_line_at_any_width_of_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = Finding("http-paths", f"src/{'long_' * 60}.py", "a path\r\nof two lines", "[bold]shorten[/bold] it", line=7)
    show_findings.table(of_billing(SOON, EDITED, long))
    assert capsys.readouterr().out.splitlines() == [
        "billing, template v1.0.0",
        "waiver-expiring (warning) conventions.yml: expires soon. Do: renew it",
        "drift-edited ruff.toml: edited, though the platform owns it. Do: `fleet update` restores it",
        f"http-paths src/{'long_' * 60}.py:7: a path of two lines. Do: [bold]shorten[/bold] it",
    ]


def test_a_report_that_cannot_be_written_leaves_the_previous_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, *_: object, **_options: object) -> None:
        file.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    report = tmp_path / "report.html"
    report.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(report, "after")
    assert (report.read_text(), os.listdir(tmp_path)) == ("before", ["report.html"])
    write_atomically(report, "after")
    assert report.read_text() == "after"
    assert report.stat().st_mode & 0o777 == 0o666 & ~_umask()


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("shown", ["table", "json", "github"])
def test_a_file_name_that_is_not_utf_8_is_shown_all_the_same(born: Born, shown: str) -> None:
    service = born(version="v1.3.0")
    Path(os.fsdecode(bytes(service / "chassis") + b"/caf\xe9.txt")).touch()
    done = completed("check", "--drift", "--format", shown, str(service))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\udce9.txt" in done.stdout


def test_a_report_with_such_a_name_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / "report", "caf\udce9")
    assert (tmp_path / "report").read_text() == "caf\\udce9"


def test_a_warning_says_so_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    show_findings.table(of_billing(EDITED, SOON))
    assert capsys.readouterr().out.count("(warning)") == 1


def test_a_diff_is_printed_unchanged_with_lines_of_any_length(capsys: pytest.CaptureFixture[str]) -> None:
    diff = f"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-{'old ' * 60}\n+{'new ' * 60}\n"
    show.report(Report("billing", "v1", "v2", healed=["x"], healed_diff=diff, changed=True), seed_diffs=False)
    assert diff in capsys.readouterr().out


def test_no_line_about_one_service_ends_with_spaces(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # in a narrow terminal a long line may fold at a space
    report = Report("billing", "v1", "v2", healed=["x"], changed=True)
    report.unfinished = "no module"
    show.report(report, seed_diffs=False)
    show_findings.table(of_billing(EDITED, SOON))
    assert [line for line in capsys.readouterr().out.splitlines() if line != line.rstrip()] == []


GIT = {"vcs": "git", "commit_id": "0123456789ab" + "c" * 28}


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (None, "fleet 0.1.0"),
        ({"url": "file:///srv/slipway", "dir_info": {}}, "fleet 0.1.0"),
        ({"vcs_info": GIT}, "fleet 0.1.0 (0123456789ab)"),
        ({"vcs_info": GIT | {"requested_revision": "v1.4.0"}}, "fleet 0.1.0 (v1.4.0 0123456789ab)"),
    ],
)
def test_the_version_says_from_which_commit_of_the_template_fleet_is(
    monkeypatch: pytest.MonkeyPatch, origin: object, said: str
) -> None:
    monkeypatch.setattr("fleet.template.installation.distribution", lambda _name: Installed(origin))
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"{said}\n")


ESCAPE = "\x1b]52;c;ZXZpbA==\x07"  # sets the clipboard of many terminals
HOSTILE_TEXT = f"v1{ESCAPE}\x9b2J\x7f\u202e[bold][/x]"


def hostile_standing() -> Standing:
    finding = Finding(f"id{HOSTILE_TEXT}", HOSTILE_TEXT, HOSTILE_TEXT, HOSTILE_TEXT, why=HOSTILE_TEXT)
    return Standing(HOSTILE_TEXT, HOSTILE_TEXT, version=HOSTILE_TEXT, newest=HOSTILE_TEXT, conventions=(finding,))


def commands_in(text: str) -> set[str]:
    """Return the control characters for a terminal, without our colours."""
    return set(
        re.findall(r"[^\x20-\x7e\n\u00a0-\u2010\u2011-\u2027\u2070-\U0010ffff]", re.sub(r"\x1b\[[\d;]*m", "", text))
    )


def test_no_format_of_status_passes_a_control_character_to_the_terminal() -> None:
    unreadable = Standing(HOSTILE_TEXT, "/srv/gone", unreadable=HOSTILE_TEXT)
    found = [hostile_standing(), unreadable]
    for text in (overview.table(found), overview.table(found, width=200), visible(overview.markdown(found))):
        assert commands_in(text) == set()
        assert r"\x1b]52" in text.replace("\\\\", "\\").replace("\\]", "]")


def test_no_command_about_one_service_passes_a_control_character_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_findings.table(checking.Report(HOSTILE_TEXT, HOSTILE_TEXT, list(hostile_standing().findings)))
    report = Report(
        HOSTILE_TEXT, HOSTILE_TEXT, "v2", healed=[HOSTILE_TEXT], healed_diff=f"+{HOSTILE_TEXT}", changed=True
    )
    report.unfinished = HOSTILE_TEXT
    show.report(report, seed_diffs=False)
    show.outcomes([Outcome(HOSTILE_TEXT, failure=HOSTILE_TEXT, log=HOSTILE_TEXT, branch=HOSTILE_TEXT, tip="a")])
    assert commands_in(capsys.readouterr().out) == set()


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_hostile_tag_and_a_hostile_file_name_are_shown_and_not_obeyed(
    born: Born, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born()
    monkeypatch.chdir(service)
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("_commit: v1.0.0", r'_commit: "v1\e]52;c;ZXZpbA==\a[/x]"'))
    (service / f"ruff{ESCAPE}.toml").write_text("")
    commit(service)
    for arguments in (
        ["check"],
        ["check", "--format", "github"],
        ["map", "."],
        ["map", ".", "--format", "mermaid"],
        ["update"],
    ):
        done = completed(*arguments)
        assert commands_in(done.stdout + done.stderr) == set(), arguments
        assert "Traceback" not in done.stderr
