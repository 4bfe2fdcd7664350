"""Measure a generated `billing` service against a bare FastAPI app with SQLAlchemy's async ORM, in one run.

`make bench`, or `.venv/bin/python -m bench.http --only get,post`; with `--auth` the service verifies access tokens. Both
applications are one Uvicorn worker (uvloop, httptools) on the same embedded Postgres and the same table, loaded by wrk over
loopback. Ours exports every trace to a local OTLP receiver; the bare application (bare_app.py) has no telemetry. CPU per request
is user and system time of the whole process, exporter thread included.

Rounds alternate, and the order within a round changes from round to round. A ratio is the median of the ratios of all rounds: the
two loads of one round run within seconds, so that a machine that other programs use slows both. The table also shows the
smallest and the largest ratio of a round.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from chassis.dev.embedded import temporary_postgres
from chassis.dev.issuer import Issuer

from bench.process import REPORT, App
from bench.sink import Sink, sink
from tests.support.leftovers import clean_up_after_this_process

ROOT = Path(__file__).parents[1]
LOADS = ("get", "list", "post")
CELLS = (*LOADS, "idle", "start")
ROWS = 2000
INVOICES = "/v1/invoices"
INVOICE = json.dumps(
    {
        "number": "2027-0001",
        "customer_id": "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d",
        "total": {"amount": 1250, "currency": "EUR"},
        "due_on": "2027-01-31",
        "note": "Thirty days.",
    }
)
PROMISES = {
    ("get", "cpu_us_per_request"): "ratio 0.5",
    ("post", "cpu_us_per_request"): "ratio 0.6",
    ("idle", "memory_mib"): "100 MiB",
    ("start", "to_livez_seconds"): "ratio 1.5",
    ("start", "to_get_seconds"): "ratio 1.5",
}
"""The most that the service may cost: an absolute value, or a ratio to the bare application."""

Rounds = dict[str, dict[str, list[dict[str, Any]]]]
"""The rounds by cell, then by application."""


def main() -> None:
    clean_up_after_this_process()
    options = _options()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: install it (Debian: apt install wrk)")
    issuer = Issuer("billing")
    with temporary_postgres() as url, sink() as receiver, issuer.running(), tempfile.TemporaryDirectory() as folder:
        apps = prepare(Path(folder), url, receiver, issuer if options.auth else None)
        rounds = measure(apps, receiver, options)
    print(json.dumps(rounds, indent=2) if options.json else table(rounds))


def prepare(folder: Path, database_url: str, receiver: Sink, issuer: Issuer | None = None) -> list[App]:
    """Make a service from this checkout with its tables in the database, and the bare application.

    With an issuer, the service verifies tokens, and both applications get the same request headers.
    """
    auth, trusted, headers = with_tokens(issuer) if issuer else ("none", {}, {})
    copier = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD"]
    subprocess.run([*copier, "-d", "service_name=billing", "-d", f"auth={auth}", str(ROOT), str(folder)], check=True)
    # The service runs in our own virtual environment, which has its dependencies, and with the chassis that it has received:
    # without the parts that its answers leave out.
    settings = {
        "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder / "chassis/src")]),
        "DATABASE_URL": database_url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "DRAIN_SECONDS": "0",
        **trusted,
    }
    service = [sys.executable, "-m", "billing"]
    subprocess.run([*service, "migrate"], env=os.environ | settings, stdout=subprocess.DEVNULL, check=True)
    uvicorn = [sys.executable, "-m", "uvicorn", "bench.bare_app:app", "--app-dir", str(ROOT), "--port", "PORT"]
    flags = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [
        App("service", [*service, "serve"], settings, headers),
        App("bare", [*uvicorn, *flags], {"DATABASE_URL": database_url}, headers),
    ]


def with_tokens(issuer: Issuer) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return the answer, the settings of the service, and the headers of each request."""
    name = "https://issuer.example"  # `serve` refuses the issuer of development by its own name
    token = issuer.token("user-17", scopes=["invoices:read", "invoices:write"], iss=name)
    settings = {"OIDC_ISSUER": name, "OIDC_AUDIENCE": "billing", "OIDC_JWKS_URL": f"{issuer.url}/keys"}
    return "oidc", settings, {"Authorization": f"Bearer {token}"}


def measure(apps: list[App], receiver: Sink, options: argparse.Namespace) -> Rounds:
    """Measure all rounds of the requested cells."""
    rounds: Rounds = {cell: {app.name: [] for app in apps} for cell in CELLS if cell in options.only}

    def note(cell: str, app: App, **figures: float) -> None:
        rounds[cell][app.name].append(figures)
        shown = "  ".join(f"{name} {figure:.6g}" for name, figure in figures.items())
        print(f"{cell} {app.name}: {shown}", file=sys.stderr, flush=True)

    with ExitStack() as running, tempfile.TemporaryDirectory() as folder:
        for app in apps:
            running.enter_context(app.running())
        ids = [apps[0].post(INVOICES, INVOICE)["id"] for _ in range(ROWS)]
        check_same_work(apps, ids[0])
        scripts = write_scripts(Path(folder), ids, apps[0].headers)
        for app in apps:
            for cell in LOADS:
                app.load(scripts[cell], seconds=1)
        if "idle" in rounds:
            time.sleep(2)
            for app in apps:
                note("idle", app, memory_mib=app.memory_mib())
        for cell in [cell for cell in LOADS if cell in rounds]:
            for number in range(options.rounds):
                for app in apps if number % 2 == 0 else reversed(apps):
                    spans = receiver.spans
                    load = app.load(scripts[cell], options.seconds)
                    note(cell, app, **asdict(load), spans_per_request=(receiver.spans - spans) / load.requests)
    for _ in range(options.rounds if "start" in rounds else 0):
        for app in apps:
            note("start", app, **asdict(app.start(f"{INVOICES}/{ids[0]}")))
    return rounds


def check_same_work(apps: list[App], invoice_id: str) -> None:
    """Exit unless both apps give the same answers: no app may be faster because the app does less."""
    for path in (f"{INVOICES}/{invoice_id}", f"{INVOICES}?limit=20"):
        first, second = (app.get(path) for app in apps)
        if first != second:
            raise SystemExit(f"{path} differs:\n{first}\n{second}")


def write_scripts(folder: Path, ids: list[str], headers: dict[str, str]) -> dict[str, Path]:
    """Write the script of wrk's requests, by cell."""
    paths = ", ".join(f'"{INVOICES}/{invoice_id}"' for invoice_id in ids)
    requests = {
        "get": f'paths = {{{paths}}}\nrequest = function() return wrk.format("GET", paths[math.random(#paths)]) end',
        "list": f'request = function() return wrk.format("GET", "{INVOICES}?limit=20") end',
        "post": 'wrk.headers["Content-Type"] = "application/json"\n'
        f'request = function() return wrk.format("POST", "{INVOICES}", nil, [[{INVOICE}]]) end',
    }
    scripts = {cell: folder / f"{cell}.lua" for cell in requests}
    for cell, request in requests.items():
        common = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in headers.items())
        scripts[cell].write_text(common + request + REPORT)
    return scripts


def table(rounds: Rounds) -> str:
    """Show the medians, the median, smallest and largest ratio of a round, and the promise."""
    lines = [f"{'':27}{'service':>10}{'bare':>10}{'ratio':>8}{'of a round':>15}   at most"]
    for cell, by_app in rounds.items():
        for figure in by_app["service"][0]:
            pairs = [(ours[figure], bare[figure]) for ours, bare in zip(by_app["service"], by_app["bare"], strict=True)]
            ours, bare = (median(side) for side in zip(*pairs, strict=True))
            ratios = [ours / bare for ours, bare in pairs if bare]
            ratio = f"{median(ratios):8.2f}{f'{min(ratios):.2f} to {max(ratios):.2f}':>15}" if ratios else " " * 23
            promise = PROMISES.get((cell, figure), "")
            lines.append(f"{f'{cell} {figure}':27}{ours:10.4g}{bare:10.4g}{ratio}   {promise}".rstrip())
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.http", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=CELLS,
        metavar="CELL,…",
        help=f"some of {', '.join(CELLS)}",
    )
    parser.add_argument("--rounds", type=int, default=5, help="for each application (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of load in each round (default %(default)s)")
    parser.add_argument("--auth", action="store_true", help="the service verifies access tokens")
    parser.add_argument("--json", action="store_true", help="every round, as JSON")
    options = parser.parse_args()
    if unknown := set(options.only) - set(CELLS):
        parser.error(f"--only: no such cell: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    main()
