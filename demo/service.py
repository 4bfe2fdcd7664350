"""One service of the demo: generated, installed and run as a product engineer would do it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 30


class DemoFailed(Exception):
    """Something that should have happened did not."""


@dataclass
class Running:
    """A service that runs: its base URL and its process."""

    base: str
    process: subprocess.Popen[bytes]
    service: "DemoService"

    @property
    def token_command(self) -> str:
        return f"`.venv/bin/python -m {self.service.name} token`"

    def token(self) -> str:
        """A token of the issuer of `make dev`, with all scopes of the API."""
        command = [".venv/bin/python", "-m", self.service.name, "token"]
        return run(command, cwd=self.service.folder).stdout.strip()


@dataclass
class DemoService:
    """A service that is made from a file of answers. `own` is a folder with the files that its team adds."""

    name: str
    answers: Path
    own: Path | None = None
    place: Path = ROOT / "build" / "demo"

    @property
    def folder(self) -> Path:
        return self.place / self.name

    def make_room(self) -> str | None:
        """Remove the copy of the former run, except for its installed packages.

        Move a copy with somebody's changes aside, and return its new place.
        """
        if not self.folder.exists():
            return None
        # A run that was interrupted has left no commit.
        is_whole = (self.folder / ".git").exists()
        commits = self._git("rev-list", "--count", "HEAD", check=False).stdout.strip() if is_whole else ""
        if commits and (commits != "1" or self._git("status", "--porcelain").stdout):
            aside = self.folder.with_name(f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}")
            self.folder.rename(aside)
            return os.path.relpath(aside, ROOT)
        for path in self.folder.iterdir():
            if path.name != ".venv":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        with suppress(OSError):  # the folder still has the packages
            self.folder.rmdir()
        return None

    def generate(self) -> None:
        """`copier copy`, the files that the team adds, and a repository."""
        # HEAD, not the newest release: the demo shows this checkout.
        version = ["--vcs-ref", "HEAD"] if (ROOT / ".git").exists() else []
        answers = ["--defaults", "--data-file", str(self.answers)]
        run([sys.executable, "-m", "copier", "copy", "--quiet", *answers, *version, str(ROOT), str(self.folder)])
        if self.own:
            only = shutil.ignore_patterns(self.answers.name, "__pycache__")
            shutil.copytree(self.own, self.folder, ignore=only, dirs_exist_ok=True)
        self._git("init", "--quiet", "--initial-branch", "main")

    def sync(self) -> None:
        """Install the service and the packages that it lacks: after this, the service can start."""
        run(["uv", "sync", "--quiet"], cwd=self.folder)

    def complete(self) -> None:
        """Do the rest of `make setup` after `sync`."""
        run([".venv/bin/python", "-m", self.name, "specs"], cwd=self.folder)
        self.install()

    def install(self) -> None:
        """`make setup`, and the first commit."""
        run(["make", "setup"], cwd=self.folder)
        self.commit()

    def commit(self, *options: str) -> None:
        self._git("add", "--all")
        identity = ["-c", "user.name=slipway demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgsign=false"]
        self._git(*identity, "commit", "--quiet", "--message", f"Start {self.name}", *options)

    @contextmanager
    def running(self, **settings: str) -> Generator[Running]:
        """Run the process of `make dev`: PostgreSQL, NATS, migrations and the service."""
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
            yield Running(addresses["readiness"].removesuffix("/readyz"), process, self)
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
            if "readiness" in addresses:
                return addresses
            time.sleep(0.05)
        raise DemoFailed(f"{self.name} did not start:\n{log.read_text()}")

    def _git(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(["git", *arguments], cwd=self.folder, check=check)


def run(command: list[str], *, cwd: Path = ROOT, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with these variables. Raises DemoFailed."""
    result = subprocess.run(command, cwd=cwd, env=environment(**extra), capture_output=True, text=True)
    if check and result.returncode != 0:
        raise DemoFailed(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result


def environment(**extra: str) -> dict[str, str]:
    """Return our environment without the variables that name other servers: the demo shows the embedded servers."""
    ours = {"DATABASE_URL", "BROKER_URL", "PG_BIN", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    return {name: value for name, value in os.environ.items() if name not in ours} | extra
