"""Measure `fleet up` on products of 5 and 12 generated services: start, processor time, memory, work at rest.

`.venv/bin/python -m bench.product`, or with `--services 12,20`. The services are copies of one service with messages and
identity, each with a name and an environment of its own. The first start installs and migrates each service; the second start
is measured, too.
Memory is the proportional set size of all processes: shared pages count once. Linux only, because of /proc.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from chassis.dev.embedded import postgresql

from bench.fleet import IDENTITY, generated, named
from tests.support.leftovers import clean_up_after_this_process
from tests.support.services import lend_packages

REST_SECONDS = 20


def main() -> None:
    clean_up_after_this_process()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--services", default="5,12", help="how many (default %(default)s)")
    counts = [*map(int, parser.parse_args().services.split(","))]
    os.environ |= IDENTITY
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        os.environ["FLEET_CACHE_DIR"] = str(folder / "cache")
        template, born = generated(folder)
        os.environ["FLEET_TEMPLATE"] = str(template)
        names = [f"svc{chr(97 + number // 26)}{chr(97 + number % 26)}zz" for number in range(max(counts))]
        for name in names:
            lend_packages(born, named(born, folder, name))
        for count in counts:
            entries = [f'[[service]]\npath = "{name}"\n' for name in names[:count]]
            (folder / "fleet.toml").write_text("".join(entries))
            measure(folder, count)
        postgresql.delete(folder / ".fleet/postgres")


def measure(folder: Path, count: int) -> None:
    began = time.monotonic()
    fleet(folder, "up", "--detach", check=False)  # the first start installs and migrates each service
    print(f"{count} services, first start:        {time.monotonic() - began:6.1f} s")
    fleet(folder, "down")
    began = time.monotonic()
    up = fleet(folder, "up", "--detach", check=False)
    took, used = time.monotonic() - began, processor_seconds(folder)
    states = json.loads(fleet(folder, "up", "--status", "--format", "json", check=False).stdout)["services"]
    ready = sum(one["state"] == "ready" for one in states)
    print(
        f"{count} services, second start:       {took:6.1f} s, {used:.1f} s of a processor, {ready} ready", flush=True
    )
    if up.returncode:
        print(up.stdout, up.stderr)
    before = processor_seconds(folder)
    time.sleep(REST_SECONDS)
    rest = 100 * (processor_seconds(folder) - before) / REST_SECONDS
    sizes = {one["name"]: proportional(psutil.Process(one["pid"])) for one in states if one["pid"]}
    whole = sum(proportional(each) for each in processes(folder))
    print(f"{count} services, at rest:            {rest:6.1f} % of a core")
    print(
        f"{count} services, memory:             {whole:6.0f} MiB, of a service {max(sizes.values(), default=0):.0f} MiB"
    )
    began = time.monotonic()
    fleet(folder, "down")
    print(f"{count} services, down:               {time.monotonic() - began:6.1f} s")


def fleet(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet", *arguments, f"--config={folder / 'fleet.toml'}"]
    return subprocess.run(command, capture_output=True, text=True, check=check)


def processes(folder: Path) -> list[psutil.Process]:
    """Find `fleet up` of this folder, and all that it has started."""
    (run,) = [
        each
        for each in psutil.process_iter()
        if {"up", f"--config={folder / 'fleet.toml'}"} <= {*_arguments(each)} and "--detach" not in _arguments(each)
    ]
    return [run, *run.children(recursive=True)]


def _arguments(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def processor_seconds(folder: Path) -> float:
    """Return the processor time of all processes, with that of their children that have ended."""
    total = 0.0
    for each in processes(folder):
        with suppress(psutil.Error):
            total += sum(each.cpu_times()[:4])
    return total


def proportional(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return process.memory_full_info().pss / 2**20
    return 0.0


if __name__ == "__main__":
    main()
