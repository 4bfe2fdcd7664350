"""docs/tutorial.md is true: the test runs its commands, applies its diffs, and compares its outputs."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.answers import VARIANTS
from tests.support.commands import service_environment
from tests.support.paths import ROOT
from tests.support.services import Birth, lend_packages

TUTORIAL = ROOT / "docs" / "tutorial.md"
START_TIMEOUT_SECONDS = 120
SHOWN_URL = "http://127.0.0.1:8000"


def blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def matches(shown: str, printed: str) -> bool:
    """Return whether `printed` has the lines of `shown` in order. `…` stands for any text."""
    position = 0
    for line in filter(None, (line.rstrip().strip("…") for line in shown.splitlines())):
        pattern = ".*?".join(re.escape(part) for part in line.split("…"))
        found = re.compile(pattern).search(printed, position)
        if found is None:
            return False
        position = found.end()
    return True


class Reader:
    """A reader who types the commands of the page in one terminal, and keeps `make dev` running in another."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        self.words = {
            "uvx copier": f"{shlex.quote(sys.executable)} -m copier",
            "https://git.example.com/platform/slipway.git": str(template),
        }
        self.kept = shlex.quote(str(folder / "variables"))
        self.known = [f"[ ! -e {self.kept} ] || . {self.kept}", "set -e"]
        self.dev: subprocess.Popen[bytes] | None = None
        env = service_environment()
        who = {"NAME": "Reader", "EMAIL": "reader@example.com"}
        self.env = env | {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}

    def run(self, script: str) -> tuple[int, str]:
        if script.strip() == "make dev":
            return 0, self.start_dev()
        typed = "\n".join([*self.known, script])
        # A terminal keeps its variables.
        typed = f"trap 'declare -p id token 2>/dev/null > {self.kept} || true' EXIT\n{typed}"
        for word, meaning in self.words.items():  # at each start, because the port differs if port 8000 is taken
            typed = typed.replace(word, meaning)
        done = subprocess.run(
            ["bash", "-c", typed],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.known += [line for line in script.splitlines() if line.startswith("cd ")]
        return done.returncode, done.stdout

    def apply(self, diff: str) -> None:
        subprocess.run(["git", "apply", "-"], cwd=self.folder / "billing", input=diff, check=True, text=True)

    def start_dev(self) -> str:
        self.stop_dev()
        log = self.folder / "dev.log"
        with log.open("wb") as output:
            self.dev = subprocess.Popen(
                ["make", "dev"],
                cwd=self.folder / "billing",
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not (found := re.search(r"API +(http://[^/]+)/.*curl -i", log.read_text(), re.DOTALL)):
            assert time.monotonic() < deadline, log.read_text()
            assert self.dev.poll() is None, log.read_text()
            time.sleep(0.1)
        self.words[SHOWN_URL] = found[1]
        return log.read_text().replace(found[1], SHOWN_URL)

    def stop_dev(self) -> None:
        if self.dev is not None:
            os.killpg(self.dev.pid, signal.SIGINT)
            self.dev.wait(START_TIMEOUT_SECONDS)
            self.dev = None


@contextmanager
def reader(folder: Path, template: Path) -> Generator[Reader]:
    someone = Reader(folder, template)
    try:
        yield someone
    finally:
        someone.stop_dev()


@pytest.mark.slow
@pytest.mark.xdist_group("dev")
def test_the_tutorial_works_as_written(tmp_path: Path, template: Path, birth: Birth) -> None:
    lender = birth(**VARIANTS["default"])
    with reader(tmp_path, template) as someone:
        found = blocks(TUTORIAL.read_text())
        for (kind, text), (next_kind, shown) in zip(found, [*found[1:], ("", "")], strict=True):
            if kind == "diff":
                someone.apply(text)
            if kind != "sh":
                continue
            if (
                "make setup" in text
            ):  # the first installation of a service in a run has no packages that are compiled already
                lend_packages(lender, tmp_path / "billing")
            status, printed = someone.run(text)
            shown = shown if next_kind == "text" else ""
            assert (status != 0) == ("make: ***" in shown), f"{text}\n{printed}"
            assert matches(shown, printed), f"{text}\nprinted:\n{printed}\nthe page shows:\n{shown}"


def test_a_tutorial_that_shows_other_output_is_noticed() -> None:
    assert matches("one…\n…\nthree\n", "one two\nthree\n")
    assert not matches("three\none\n", "one\nthree\n")
    assert not matches("four\n", "one\nthree\n")
