"""Measure the generated image against a naive image of the same service: size, and the time of builds, in one run.

`make bench-image`. The naive Dockerfile is what teams write on day one: one stage, everything copied, then installed
by pip. Both images are built by the same engine (tests/support/engine.py) from the same base image. A cold build has the base
image, but no layer and no cache of packages. The other build follows a change of one source file. Rounds alternate, medians
are shown, and ratios are ours divided by the naive image's.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import copier

from bench.fleet import ROOT
from tests.support import engine as engines
from tests.support.base_image import TAG
from tests.support.engine import Engine
from tests.support.leftovers import clean_up_after_this_process

NAIVE = f"""FROM {TAG}
WORKDIR /app
COPY . .
RUN pip install ./chassis .
CMD ["python", "-m", "billing", "serve"]
"""


def main() -> None:
    clean_up_after_this_process()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, engines.running() as engine:
        ours, naive = Path(folder, "ours"), Path(folder, "naive")
        generated(ours)
        shutil.copytree(ours, naive)
        (naive / "Dockerfile").write_text(NAIVE)
        (naive / ".dockerignore").unlink()
        seconds: dict[tuple[str, str], list[float]] = {}
        for number in range(rounds):
            for source in (ours, naive):
                engine.docker("builder", "prune", "--all", "--force")
                seconds.setdefault(("cold", source.name), []).append(build(engine, source))
                # The change is a statement and not a comment, so that the bytecode changes, too.
                with (source / "src/billing/main.py").open("a") as file:
                    file.write(f"\nCHANGE = {number}\n")
                seconds.setdefault(("source only", source.name), []).append(build(engine, source))
        sizes = {source.name: engine.inspect(source.name)["Size"] / 2**20 for source in (ours, naive)}
        base = engine.inspect(TAG)["Size"] / 2**20
    for kind in ("cold", "source only"):
        report(f"{kind} build", "s", median(seconds[kind, "ours"]), median(seconds[kind, "naive"]))
    report("size", "MiB", sizes["ours"], sizes["naive"])
    report(f"size above the base ({base:.0f} MiB)", "MiB", sizes["ours"] - base, sizes["naive"] - base)


def generated(folder: Path) -> None:
    """Generate a service from this working tree, and lock its dependencies."""
    answers = {"service_name": "billing", "messaging_style": "events", "broker": "nats"}
    copier.run_copy(
        str(ROOT), folder, data=answers, defaults=True, quiet=True, vcs_ref="HEAD", settings=copier.Settings()
    )
    subprocess.run(["uv", "lock", "--quiet", "--python", sys.executable], cwd=folder, check=True)


def build(engine: Engine, source: Path) -> float:
    """Build the image, and return the seconds of the build."""
    begun = time.perf_counter()
    engine.docker("build", "--tag", source.name, str(source))
    return time.perf_counter() - begun


def report(what: str, unit: str, ours: float, naive: float) -> None:
    print(f"{what}: ours {ours:.1f} {unit}, naive {naive:.1f} {unit}, ratio {ours / naive:.2f}")


if __name__ == "__main__":
    main()
