"""Measure `fleet status` on 1, 50 and 200 services, and drift check and update against cruft's, in one run.

`.venv/bin/python -m bench.fleet`, or with `--services 1,10 --rounds 1` for a quick look. The services are copies of one
generated and installed service. Each copy has a name of its own and edits, and every third copy breaks a rule. A cold run
begins with an empty cache, and a warm run with the cache of the run before. Memory is the largest resident size of fleet and
its children at one moment; a page that processes share counts once for each process.

cruft (its newest release, in an environment of its own) works on a cookiecutter template made of the same files. Rounds
alternate, medians are shown, and ratios are ours divided by cruft's.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median

import psutil

from bench.cookiecutter import cookiecutter_of
from tests.support.leftovers import clean_up_after_this_process

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "build" / "tools"
FLEET = [sys.executable, "-m", "fleet"]
# A word that is nowhere in the template, so that another one can take its place.
NAME = "svczzzz"
PROMISES = {
    "cold": "15 s and 500 MiB for 200",
    "warm": "0.4 s for 200",
    "page": "3 s for 200, warm with a page for each of 200 owners and a history of 400 days",
}
IDENTITY = {f"GIT_{who}_{what}": "bench@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass(frozen=True)
class Run:
    """One run of a command."""

    seconds: float
    peak_mib: float
    cpu_seconds: float


def main() -> None:
    clean_up_after_this_process()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--services", default="1,50,200", help="how many (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--urls", action="store_true", help="list the services by file:// URL, to be mirrored")
    parser.add_argument("--without-cruft", action="store_true")
    options = parser.parse_args()
    os.environ |= IDENTITY
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ["FLEET_CACHE_DIR"] = str(Path(folder, "cache"))
        template, born = generated(Path(folder))
        os.environ["FLEET_TEMPLATE"] = str(template)
        for number in map(int, options.services.split(",")):
            status(Path(folder, str(number)), born, number, rounds=options.rounds, urls=options.urls)
        if not options.without_cruft:
            beside_cruft(Path(folder), template, born, rounds=options.rounds)


# --- The measured services ---------------------------------------------------------------------------------------------


def generated(folder: Path) -> tuple[Path, Path]:
    """Make a template with two releases from this working tree, and install a service of the first release."""
    template, born = folder / "template", folder / NAME
    files = call("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (template / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, template / name)
    committed(template, "v1.0.0")
    invoice = "aggregates=Invoice: {number: string(40), total: money, due_on: date?}"
    answers = (invoice, "messaging_style=events-and-queues", "broker=nats", "ci=both")
    data = [part for answer in answers for part in ("-d", answer)]
    call(*FLEET, "new", NAME, "--template", str(template), "--defaults", *data, cwd=folder)
    call("make", "setup", cwd=born)
    committed(born)
    ruff = template / "template/ruff.toml"
    ruff.write_text(ruff.read_text().replace("line-length = 120", "line-length = 110"))
    (template / "template/platform.txt").write_text("New.\n")
    call("git", "add", "--all", cwd=template)
    call("git", "commit", "--quiet", "--message", "v1.1.0", cwd=template)
    call("git", "tag", "v1.1.0", cwd=template)
    return template, born


def named(born: Path, folder: Path, name: str) -> Path:
    """Copy the service under another name. The name has the same length, so that the template would make the same lines."""
    assert len(name) == len(NAME)
    service = folder / name
    for path in filter(None, call("git", "ls-files", "-z", cwd=born).split("\0")):
        target = service / path.replace(NAME, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (born / path).read_bytes().replace(NAME.encode(), name.encode())
        target.write_bytes(text.replace(NAME.title().encode(), name.title().encode()))
        target.chmod((born / path).stat().st_mode)
    return service


def edited(service: Path, number: int) -> None:
    """Edit the service as a team does: each service has code of its own, and every third service breaks a rule."""
    settings = next(service.glob("src/*/settings.py"))
    settings.write_text(f"{settings.read_text()}\n# Service {number}.\n")
    if number % 3 == 0:
        (service / "ruff.toml").write_text("line-length = 80\n")
    if number % 9 == 0:
        (service / "ty.toml").unlink()
    if number % 9 == 3:
        shutil.rmtree(service / "docs")


def remembered(history: Path, days: int = 400) -> None:
    """Fill the history with `days` copies of today's line, one for each day until today."""
    line = json.loads(history.read_text().splitlines()[-1])
    dates = [date.fromisoformat(line["day"]) - timedelta(ago) for ago in range(days - 1, -1, -1)]
    history.write_text("".join(json.dumps(line | {"day": str(day)}) + "\n" for day in dates))


def committed(folder: Path, tag: str = "") -> None:
    call("git", "init", "--quiet", "--initial-branch", "main", cwd=folder)
    call("git", "add", "--all", cwd=folder)
    call("git", "commit", "--quiet", "--message", "Start", cwd=folder)
    if tag:
        call("git", "tag", tag, cwd=folder)


# --- fleet status ------------------------------------------------------------------------------------------------------


def status(folder: Path, born: Path, number: int, *, rounds: int, urls: bool) -> None:
    listed = ""
    for index in range(number):
        name = "svc" + "".join(chr(ord("a") + index // 26**place % 26) for place in range(4))
        service = named(born, folder, name)
        edited(service, index)
        committed(service)
        address = f'url = "file://{service}"' if urls else f'path = "{name}"'
        listed += f"[[service]]\n{address}\n"
    (folder / "fleet.toml").write_text(listed)
    cold, warm, paged = [], [], []
    page = ["--record", "history.jsonl", "--page", "site"]
    for _ in range(rounds):
        forget()
        cold.append(measured(*FLEET, "status", "--format", "json", *page, cwd=folder, status=1))
        remembered(folder / "history.jsonl")
        warm.append(measured(*FLEET, "status", "--format", "json", cwd=folder, status=1))
        paged.append(measured(*FLEET, "status", "--format", "json", *page, cwd=folder, status=1))
    services = "1 service" if number == 1 else f"{number} services"
    print(f"\nfleet status, {services}{' by URL' if urls else ''}")
    for kind, runs in (("cold", cold), ("warm", warm), ("page", paged)):
        seconds, peak = median(run.seconds for run in runs), max(run.peak_mib for run in runs)
        cpu = median(run.cpu_seconds for run in runs)
        print(f"  {kind}  {seconds:7.2f} s  {cpu:7.2f} s CPU  {peak:6.0f} MiB at most  (wanted: {PROMISES[kind]})")
    shutil.rmtree(folder)


# --- Against cruft ------------------------------------------------------------------------------------------------------


def beside_cruft(folder: Path, template: Path, born: Path, *, rounds: int) -> None:
    """Measure drift check and update of a service with one edited file, and of the same service made by cruft."""
    cruft = installed("cruft")
    newer = folder / "newer" / NAME
    shutil.copytree(born, newer, ignore=shutil.ignore_patterns(".venv"), symlinks=True)
    call(*FLEET, "update", "--no-finish", cwd=newer)
    theirs = cookiecutter_of(
        folder / "cookiecutter", NAME, [tracked(born, folder / "v1"), tracked(newer, folder / "v2")]
    )
    call(cruft, "create", str(theirs), "--checkout", "v1.0.0", "--no-input", "--output-dir", str(folder / "cruft"))
    committed(folder / "cruft" / NAME)
    shutil.rmtree(newer / ".venv", ignore_errors=True)
    call(
        "git",
        "reset",
        "--quiet",
        "--hard",
        call("git", "rev-list", "--max-parents=0", "HEAD", cwd=newer).strip(),
        cwd=newer,
    )
    pair = {"fleet": newer, "cruft": folder / "cruft" / NAME}
    for service in pair.values():
        (service / "ruff.toml").write_text("line-length = 80\n")
        call("git", "commit", "--quiet", "--all", "--message", "Edit", cwd=service)

    print(f"\nDrift of one edited file, and an update, of the template at {template.name}; seconds, and ratio to cruft")
    drift = {"fleet": [*FLEET, "check", "--drift"], "cruft": [cruft, "diff", "--exit-code"]}
    compare("drift, cold", pair, drift, rounds, before=lambda _: forget(), status=1)
    compare("drift, warm", pair, drift, rounds, before=lambda _: None, status=1)
    updates = {"fleet": [*FLEET, "update", "--no-finish"], "cruft": [cruft, "update", "--skip-apply-ask"]}
    compare("update, cold", pair, updates, rounds, before=lambda _: forget(), status=0)
    compare("update, warm", pair, updates, rounds, before=lambda _: None, status=0)


def compare(
    what: str,
    pair: dict[str, Path],
    commands: dict[str, list[str]],
    rounds: int,
    before: Callable[[Path], object],
    status: int,
) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in pair}
    for _ in range(rounds):
        for name, service in pair.items():
            start = call("git", "rev-parse", "HEAD", cwd=service).strip()
            before(service)
            seconds[name].append(measured(*commands[name], cwd=service, status=status).seconds)
            if "update" in what:
                assert call("git", "status", "--porcelain", cwd=service) or call(
                    "git", "log", f"{start}..", cwd=service
                )
            call("git", "reset", "--quiet", "--hard", start, cwd=service)
            call("git", "clean", "--quiet", "--force", "-d", cwd=service)
    ours, its = median(seconds["fleet"]), median(seconds["cruft"])
    print(f"  {what:14} fleet {ours:6.2f}  cruft {its:6.2f}  ratio {ours / its:5.2f}")


def forget() -> None:
    shutil.rmtree(os.environ["FLEET_CACHE_DIR"], ignore_errors=True)


def tracked(service: Path, into: Path) -> Path:
    call("git", "checkout-index", "--all", f"--prefix={into}/", cwd=service)
    return into


def installed(tool: str) -> str:
    """Install a package in an environment of its own, and return the path of its program."""
    places = {"UV_TOOL_DIR": str(TOOLS / "uv"), "UV_TOOL_BIN_DIR": str(TOOLS / "bin")}
    if not (TOOLS / "bin" / tool).exists():
        subprocess.run(["uv", "tool", "install", "--quiet", tool], env={**os.environ, **places}, check=True)
    print()
    subprocess.run(["uv", "tool", "list"], env={**os.environ, **places}, check=True)
    return str(TOOLS / "bin" / tool)


# --- Measuring ---------------------------------------------------------------------------------------------------------


def measured(*command: str, cwd: Path, status: int) -> Run:
    """Run the command and measure it. Stop the benchmark if the command ends with another status, because it has then failed."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watch.start()
    said, _ = process.communicate()
    seconds = time.monotonic() - start
    watch.join()
    if process.returncode != status:
        raise SystemExit(f"{' '.join(command)} failed:\n{said.decode(errors='replace')}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(seconds, peak[0], after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _watch(pid: int, peak: list[float]) -> None:
    while True:
        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
            resident = 0
            for member in family:
                try:
                    resident += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], resident / 2**20)
            if process.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)


def call(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
