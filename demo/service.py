"""One service of the demo: generated, installed and run as a product engineer would do it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 30


class DemoFailed(Exception):
    """Something that should have happened did not."""


@dataclass
class Running:
    """Where a service answers, and where its broker is."""

    base: str
    broker: str
    process: subprocess.Popen[bytes]
    service: "DemoService"

    @property
    def token_command(self) -> str:
        return f"`python -m {self.service.name} token`"

    def token(self) -> str:
        """A token of the issuer of `make dev`, with all scopes of the API."""
        command = [".venv/bin/python", "-m", self.service.name, "token"]
        return run(command, cwd=self.service.folder).stdout.strip()


@dataclass
class DemoService:
    """`added` are the team's own files, by their path in the service."""

    name: str
    answers: dict[str, str]
    added: dict[str, Path] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return ROOT / "build" / "demo" / self.name

    def make_room(self) -> str | None:
        """Remove the last demo's copy. Move a copy with somebody's changes aside, and return its new place."""
        if not self.folder.exists():
            return None
        changes = self._git("status", "--porcelain", check=False).stdout
        commits = self._git("rev-list", "--count", "HEAD", check=False).stdout.strip()
        if changes or commits != "1":
            aside = self.folder.with_name(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}")
            self.folder.rename(aside)
            return str(aside.relative_to(ROOT))
        shutil.rmtree(self.folder)
        return None

    def generate(self) -> None:
        """`copier copy`, and the files that the team adds."""
        answers = {"service_name": self.name, **self.answers}
        data = [part for name, value in answers.items() for part in ("-d", f"{name}={value}")]
        # HEAD, not the newest release: the demo shows this checkout.
        version = ["--vcs-ref", "HEAD"] if (ROOT / ".git").exists() else []
        run(
            [
                sys.executable,
                "-m",
                "copier",
                "copy",
                "--quiet",
                "--defaults",
                *version,
                *data,
                str(ROOT),
                str(self.folder),
            ]
        )
        for path, source in self.added.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, self.folder / path)

    def install(self) -> None:
        """The commands that the copy ends with."""
        self._git("init", "--quiet", "--initial-branch", "main")
        run(["make", "setup"], cwd=self.folder)
        self._git("add", "--all")
        identity = ["-c", "user.name=slipway demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgsign=false"]
        self._git(*identity, "commit", "--quiet", "--message", f"Start {self.name}")

    @contextmanager
    def running(self, **settings: str) -> Generator[Running]:
        """`make dev`'s process: PostgreSQL, migrations, the service, and NATS unless BROKER_URL names a broker."""
        log = self.folder / ".dev" / "demo.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as output:
            process = subprocess.Popen(
                [".venv/bin/python", "-m", self.name, "dev"],
                cwd=self.folder,
                env=environment(SERVICE_VERSION="demo", **settings),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            addresses = self._wait_for_addresses(process, log)
            yield Running(addresses["readiness"].removesuffix("/readyz"), addresses["broker"], process, self)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def _wait_for_addresses(self, process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
        """The addresses that `dev` prints when the service answers."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            addresses = {words[0]: words[1] for line in log.read_text().splitlines() if len(words := line.split()) == 2}
            if {"readiness", "broker"} <= addresses.keys():
                return addresses
            time.sleep(0.05)
        raise DemoFailed(f"{self.name} did not start:\n{log.read_text()}")

    def _git(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(["git", *arguments], cwd=self.folder, check=check)


def run(command: list[str], *, cwd: Path = ROOT, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    if check and result.returncode != 0:
        raise DemoFailed(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result


def environment(**extra: str) -> dict[str, str]:
    """Ours, without what would steer a service elsewhere: the demo shows the embedded servers."""
    ours = {"DATABASE_URL", "BROKER_URL", "PG_BIN", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    return {name: value for name, value in os.environ.items() if name not in ours} | extra
