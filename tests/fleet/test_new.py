"""`fleet new`: the boundary review, then `copier copy`."""

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pexpect
import pytest
from pexpect import fdpexpect

from fleet.errors import FleetError
from fleet.new import new, template_address
from tests.fleet.distribution import Installed
from tests.fleet.services import contents
from tests.support.commands import git

ANSWERS = {
    "description": "Bills what was sold",
    "domain": "sales",
    "owner": "billing-team",
    "aggregates": "Invoice: {total: money}",
    "messaging_style": "events",
    "broker": "kafka",
    "ci": "both",
    # The version of the template in `history`.
    "region": "us",
    "tier": "3",
}
LIMIT_SECONDS = 120


def command(template: Path, **answers: str) -> list[str]:
    data = [part for name, value in answers.items() for part in ("-d", f"{name}={value}")]
    return [sys.executable, "-m", "fleet", "new", "billing", "--template", str(template), *data]


@pytest.fixture(autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for Copier's settings, because the user may have defaults for the questions."""
    settings = tmp_path_factory.mktemp("settings") / "none.yml"
    settings.write_text("{}\n")
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(settings))


@contextmanager
def at_a_terminal(*command: str, cwd: Path) -> Generator[tuple[fdpexpect.fdspawn, subprocess.Popen[bytes]]]:
    # pexpect.spawn is no choice here: it forks this process, with the threads and locks of other tests.
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 80))
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    terminal = fdpexpect.fdspawn(ours, encoding="utf-8", timeout=LIMIT_SECONDS)
    try:
        yield terminal, process
    finally:
        process.kill()
        process.wait()
        terminal.close()


def press(terminal: fdpexpect.fdspawn, question: str, keys: str) -> None:
    terminal.expect_exact(question)
    terminal.expect(pexpect.TIMEOUT, timeout=0.5)  # let the prompt finish drawing, because it ignores keys before
    terminal.send(keys)


@pytest.mark.slow
def test_new_asks_the_questions_shows_the_review_and_makes_the_same_service_as_copier(
    history: Path, tmp_path: Path
) -> None:
    up, enter = "\x1b[A", "\r"  # from the default, "not sure yet", past "no" to "yes"
    named = {name: answer for name, answer in ANSWERS.items() if name != "owner"}
    with at_a_terminal(*command(history, **named), cwd=tmp_path) as (terminal, process):
        terminal.expect_exact("Most teams should start with a monolith")
        press(terminal, "Team that owns", "\x15a b" + enter)  # Ctrl-U clears the line
        terminal.expect_exact("type 'a-b' or '@org/team': 'a b' is not the name of a team")
        terminal.send("\x15billing-team" + enter)
        press(terminal, "Do the deployments of a monolith limit you?", up + enter)
        press(terminal, "Can a separate team develop", up + up + enter)
        press(terminal, "Are you ready to keep data consistent", up + up + enter)
        terminal.expect_exact("Should this be a service?")
        for answer in ("no", "yes", "yes"):
            terminal.expect(rf"\?\s+(\x1b\S*)?{answer}")
        terminal.expect_exact("At least two of the three answers speak for a separate service.")
        assert not (tmp_path / "billing").exists()
        press(terminal, "Write it to billing?", enter)
        terminal.expect(pexpect.EOF)
        assert process.wait(LIMIT_SECONDS) == 0
    plain = tmp_path / "plain" / "billing"
    boundary = {"limited_by_monolith": "no", "separate_team": "yes", "ready_for_consistency": "yes"}
    answers = [part for name, value in (ANSWERS | boundary).items() for part in ("-d", f"{name}={value}")]
    copy = [sys.executable, "-m", "copier", "copy", "--defaults", "--quiet", *answers, str(history), str(plain)]
    subprocess.run(copy, check=True, capture_output=True)
    assert contents(tmp_path / "billing") == contents(plain)
    modes = [
        {path.relative_to(root): path.stat().st_mode for path in root.rglob("*")}
        for root in (tmp_path / "billing", plain)
    ]
    assert modes[0] == modes[1]


@pytest.mark.slow
def test_a_pipe_gets_no_colours(history: Path, tmp_path: Path) -> None:
    done = subprocess.run([*command(history), "--defaults"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "create  pyproject.toml" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_no_at_the_review_writes_nothing(history: Path, tmp_path: Path) -> None:
    unsure = {"limited_by_monolith": "unknown", "separate_team": "yes", "ready_for_consistency": "unknown"}
    with at_a_terminal(*command(history, **ANSWERS, **unsure), cwd=tmp_path) as (terminal, process):
        terminal.expect_exact("Undecided. Start with a module of the monolith")
        press(terminal, "Write it to billing?", "n")
        terminal.expect_exact("stopped: nothing was written")
        assert process.wait(LIMIT_SECONDS) == 1
    assert not (tmp_path / "billing").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_copier")
def test_a_service_that_belongs_in_a_monolith_is_confirmed_before_its_creation(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no = dict.fromkeys(("limited_by_monolith", "separate_team"), "no")
    service = tmp_path / "billing"
    with pytest.raises(FleetError, match="type yes to create it anyway, or stop: two of three answers"):
        new(service, str(history), no, defaults=True)
    assert not service.exists()
    new(service, str(history), no | {"create_anyway": "yes"}, defaults=True)
    assert "answers speak for a monolith, as a module" in " ".join(capsys.readouterr().err.split())
    assert (service / "pyproject.toml").exists()
    with pytest.raises(FleetError, match="billing exists already: choose another name, or remove it"):
        new(service, str(history), no | {"create_anyway": "yes"}, defaults=True)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_copier")
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("class", {}, "'class' is a keyword of Python"),
        ("billing", {"ovner": "a"}, "asks no question 'ovner'; the nearest name is 'owner'"),
        ("billing", {"servicename": "a"}, "asks no question 'servicename'; the nearest name is 'service_name'"),
        ("billing", {"wibble": "a"}, "asks no question 'wibble'; it asks service_name, description"),
        ("billing", {"ci": "jenkins"}, "Invalid choice for 'ci': 'jenkins'"),
    ],
)
def test_an_answer_that_is_not_accepted_is_reported_and_no_file_is_written(
    history: Path, tmp_path: Path, name: str, data: dict[str, str], message: str
) -> None:
    with pytest.raises(FleetError, match=message):
        new(tmp_path / name, str(history), data, defaults=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["nowhere", "empty", "other", "copier.txt"])
def test_a_folder_that_is_no_template_is_refused_with_the_remedy(tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "copier.txt").touch()
    git(tmp_path, "init", "--quiet", "other")
    git(tmp_path / "other", "commit", "--quiet", "--allow-empty", "--message", "Start")
    with pytest.raises(
        FleetError, match=rf"/{given} is not a template: --template .* takes a folder with a copier\.yml"
    ):
        new(tmp_path / "billing", str(tmp_path / given), {}, defaults=True)
    assert not (tmp_path / "billing").exists()


def test_a_template_that_cannot_be_fetched_is_named_without_a_traceback(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/gone.git"
    with pytest.raises(FleetError, match=rf"template {url} cannot be fetched: fatal: .*\n(.*\n)*--template .* takes"):
        new(tmp_path / "billing", url, {}, defaults=True)


GIT = {"vcs": "git", "commit_id": "a" * 40}


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ({"url": "https://git.example.com/slipway.git", "vcs_info": GIT}, "https://git.example.com/slipway.git"),
        ({"url": "ssh://git@git.example.com/slipway", "vcs_info": GIT}, "git+ssh://git@git.example.com/slipway"),
        ({"url": "https://github.com/acme/slipway", "vcs_info": GIT}, "https://github.com/acme/slipway"),
    ],
)
def test_the_template_is_where_fleet_was_installed_from(
    monkeypatch: pytest.MonkeyPatch, origin: object, address: str
) -> None:
    monkeypatch.setattr("fleet.template.installation.distribution", lambda _name: Installed(origin))
    assert template_address() == address


def test_the_folder_from_which_fleet_was_installed_is_the_template_if_the_folder_holds_a_template(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "a template"
    folder.mkdir()
    origin = {"url": folder.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.setattr("fleet.template.installation.distribution", lambda _name: Installed(origin))
    with pytest.raises(FleetError, match="name its git URL by --template, by FLEET_TEMPLATE"):
        template_address()
    (folder / "copier.yml").touch()
    assert template_address() == str(folder)


@pytest.mark.parametrize("origin", [None, {"url": "https://pypi.example.com/slipway.whl", "archive_info": {}}])
def test_a_registry_does_not_say_where_the_template_is(monkeypatch: pytest.MonkeyPatch, origin: object) -> None:
    monkeypatch.setattr("fleet.template.installation.distribution", lambda _name: Installed(origin))
    with pytest.raises(FleetError, match="installation of fleet does not show where the template is"):
        template_address()


def test_fleet_need_not_be_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr("fleet.template.installation.distribution", missing)
    with pytest.raises(FleetError, match="does not show where the template is"):
        template_address()
