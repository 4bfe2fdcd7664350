"""Prose is plain English: Vale refuses sentences that reviewers found unclear, and accepts their replacements."""

import subprocess
from functools import partial
from pathlib import Path

import pytest

from docs import prose
from tests.support import golang

pytestmark = pytest.mark.slow  # the first test builds Vale

UNCLEAR = {
    "Of such a try nobody is left to tell.": "Slipway.Openings",
    "As what it is reported where one of many has met it.": "Slipway.Openings",
    "What is not here is internal, and may change with any update.": "Slipway.Openings",
    "What each lane has begun: so that a message is found out.": "Slipway.Words",
    "This is where a unit of work puts what is to be told to others.": "Slipway.Words",
    "The cheapest service is the one that was not created.": "Slipway.Pronouns",
    "The field stays for ever.": "Slipway.Words",
    "Write the new version beside the old version.": "Slipway.Words",
    "The clone need not be mended.": "Slipway.Words",
    "Call whoever runs the broker.": "Slipway.Words",
    "The examples are those of another service.": "Slipway.Pronouns",
}
CLEAR = [
    "Record what each lane is processing, to identify a message that crashes the worker.",
    "A crash leaves nobody to record the failed attempt.",
    "One of the ten questions asks about the broker.",
    "What does a service need?",
    "Call the team that runs the broker.",
]

vale = partial(golang.built, "vale", prose.MODULE)


def alerts(program: Path, text: str, extension: str) -> str:
    command = [program, "--config", prose.ROOT / "docs/styles/vale.ini", "--output", "line", f"--ext={extension}"]
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=prose.ROOT, timeout=60).stdout


def test_an_unclear_sentence_is_refused_in_a_page_and_in_a_docstring() -> None:
    program = vale()
    for sentence, rule in UNCLEAR.items():
        assert rule in alerts(program, f"# Title\n\nA first sentence. {sentence}\n", ".md"), sentence
        assert rule in alerts(program, f'def run():\n    """{sentence}"""\n', ".py"), sentence


def test_a_clear_sentence_is_accepted() -> None:
    program = vale()
    assert alerts(program, "\n\n".join(CLEAR), ".md") == ""
    assert alerts(program, "\n\n".join(f"# {sentence}\nx = 1" for sentence in CLEAR), ".py") == ""


def test_code_and_names_are_not_prose() -> None:
    assert alerts(vale(), "The table `told` has a line.\n\n```sh\necho told\n```\n", ".md") == ""


def test_all_prose_that_is_checked_keeps_the_rules() -> None:
    assert prose.check_changes(vale(), prose.checked_files()) == 0


def test_a_page_is_checked_again_after_a_change_or_a_refusal_and_each_page_after_a_change_of_the_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[list[str]] = []

    def check(_: str, files: list[str]) -> int:
        calls.append(files)
        return int(any("told" in (tmp_path / name).read_text() for name in files))

    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "ACCEPTED", tmp_path / "build/accepted")
    monkeypatch.setattr(prose, "check", check)
    for name, text, status, checked in (
        ("one.md", "One.", 0, ["one.md", "two.md"]),
        ("two.md", "This is told.", 1, ["two.md"]),
        ("one.md", "One.", 1, ["two.md"]),
        ("two.md", "Two.", 0, ["two.md"]),
        ("docs/styles/rule.yml", "new", 0, ["one.md", "two.md"]),
    ):
        for page in ("one.md", "two.md"):
            (tmp_path / page).touch()
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        assert prose.check_changes("vale", ["one.md", "two.md"]) == status
        assert calls.pop() == checked
    assert prose.check_changes("vale", ["one.md", "two.md"]) == 0
    assert calls == []


def test_a_machine_without_vale_is_informed_and_not_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prose, "BUILT", tmp_path / "vale")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prose.main() == 0
    assert "`make tools` builds it" in capsys.readouterr().out
