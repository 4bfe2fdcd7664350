"""The command line. What takes long to import is imported by the command that needs it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fleet.errors import FleetError

app = typer.Typer(
    name="fleet", help="Services of this platform, kept like its template.", no_args_is_help=True, add_completion=False
)

Where = Annotated[Path, typer.Argument(help="A service's repository.", show_default="this folder")]


@app.callback()
def _callback() -> None:
    """Without this, typer would make the only command the program."""


@app.command()
def check(
    path: Where = Path(),
    *,
    only_drift: Annotated[bool, typer.Option("--drift", help="Only compare with the template.")] = False,
    ref: Annotated[str | None, typer.Option(help="A commit to look at, instead of the working copy.")] = None,
) -> None:
    """Say in one table what a service does otherwise than the platform. Status 1 if any of it is an error."""
    from fleet.checks import CHECKS, DRIFT
    from fleet.findings import Level
    from fleet.service import Service
    from fleet.show import findings

    service = Service(path, ref)
    found = [finding for check in (DRIFT if only_drift else CHECKS) for finding in check(service)]
    findings(service, found)
    raise typer.Exit(any(finding.level is Level.ERROR for finding in found))


@app.command()
def update(
    path: Where = Path(),
    *,
    answers: Annotated[
        list[str] | None, typer.Option("--data", "-d", metavar="KEY=VALUE", help="Change an answer. Repeatable.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="A version of the template.", show_default="newest")
    ] = None,
    keep_branch: Annotated[
        bool, typer.Option(help="If it fails, keep the branch fleet-update for inspection.")
    ] = False,
    finish: Annotated[bool, typer.Option(help="Then run `make specs`, and commit uv.lock and specs/.")] = True,
    seed_diffs: Annotated[
        bool, typer.Option(help="Show how seeds changed that the service has its own copy of.")
    ] = False,
) -> None:
    """Bring a service to a template version: the platform's files anew, the team's as they are. All of it or nothing.

    Status 1: not possible, and nothing was changed. 3: updated, but `make specs` failed.
    """
    from fleet import show
    from fleet.update import Options, update

    data = {}
    for answer in answers or []:
        name, separator, value = answer.partition("=")
        if not separator:
            raise FleetError(f"-d wants KEY=VALUE, not {answer!r}")
        data[name] = value
    report = update(path, Options(data, to, keep_branch, finish))
    show.report(report, seed_diffs=seed_diffs)
    raise typer.Exit(3 if report.unfinished else 0)


def main() -> None:
    """The console script."""
    try:
        app()
    except FleetError as error:
        print(f"fleet: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
