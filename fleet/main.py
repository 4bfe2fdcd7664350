"""The command line. What takes long to import is imported by the command that needs it."""

import os
import sys
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fleet.errors import FleetError, refused
from fleet.output import WIDE, visible, warn

app = typer.Typer(
    name="fleet", help="Services of this platform, kept like its template.", no_args_is_help=True, add_completion=False
)

Where = Annotated[Path, typer.Argument(help="A service's repository.", show_default="this folder")]
Trusted = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        metavar="URL",
        envvar="FLEET_TEMPLATE",
        help="The platform's template: a service that names another one is refused. Repeatable.",
        show_default="what fleet.toml names, else where fleet is from",
    ),
]
Config = Annotated[Path, typer.Option(metavar="FILE", help="What lists the services.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes at a time.", show_default="one for each core")]
Data = Annotated[
    list[str] | None, typer.Option("--data", "-d", metavar="KEY=VALUE", help="Give an answer. Repeatable.")
]
FLEET = Path("fleet.toml")


class CheckFormat(StrEnum):
    """How `fleet check` says it."""

    TABLE = "table"
    JSON = "json"
    GITHUB = "github"


class StatusFormat(StrEnum):
    """How `fleet status` says it."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


class MapFormat(StrEnum):
    """How `fleet map` says it."""

    TABLE = "table"
    MERMAID = "mermaid"
    SVG = "svg"
    JSON = "json"


def _version(wanted: bool) -> None:
    if wanted:
        from fleet.installed import version

        typer.echo(version())
        raise typer.Exit


@app.callback()
def _callback(
    *,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which fleet this is.")
    ] = False,
) -> None:
    """What is said before a command."""


@app.command()
def check(
    path: Where = Path(),
    *,
    only_drift: Annotated[bool, typer.Option("--drift", help="Only compare with the template.")] = False,
    ref: Annotated[str | None, typer.Option(help="A commit to look at, instead of the working copy.")] = None,
    base: Annotated[
        str | None, typer.Option(help="What it will be merged into.", show_default="the remote's default branch")
    ] = None,
    shown: Annotated[CheckFormat, typer.Option("--format", help="github: annotations.")] = CheckFormat.TABLE,
    template: Trusted = None,
) -> None:
    """Say in one table what a service does otherwise than the platform. Status 1 if any of it is an error."""
    from fleet import show_findings
    from fleet.checks import CHECKS, DRIFT
    from fleet.findings import Level
    from fleet.service import Service

    _trust(template)
    service = Service(path, ref, base)
    found = [finding for check in (DRIFT if only_drift else CHECKS) for finding in check(service)]
    if shown is CheckFormat.TABLE:
        show_findings.table(service, found)
    else:
        text = show_findings.github(found) if shown is CheckFormat.GITHUB else show_findings.as_json(service, found)
        typer.echo(visible(text))
    raise typer.Exit(any(finding.level is Level.ERROR for finding in found))


@app.command()
def status(
    *,
    config: Config = FLEET,
    shown: Annotated[StatusFormat, typer.Option("--format")] = StatusFormat.TABLE,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there.", show_default="stdout")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Make do with what was fetched before.")] = False,
    jobs: Jobs = None,
    template: Trusted = None,
) -> None:
    """Say how every service stands: version, drift, conventions, waivers. Status 1 if one breaks the policy or cannot be read."""
    from fleet import overview
    from fleet.conventions import conventions
    from fleet.register import members
    from fleet.status import is_breached, status

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    listed = members(config)
    _trust(template, config)
    standings = status(listed, jobs)
    if shown is StatusFormat.TABLE:
        text = overview.table(standings, width=_width(output))
    elif shown is StatusFormat.JSON:
        text = overview.as_json(standings)
    else:
        from fleet.map import gather, show
        from fleet.map.findings import findings
        from fleet.page import page

        map_ = gather.of_standings(listed, standings)
        if shown is StatusFormat.HTML:
            links = {standing.name: f"#s{number}" for number, standing in enumerate(standings, 1)}
            text = page(standings, conventions(), show.html(map_, findings(map_), links))
        else:
            text = overview.markdown(standings, show.markdown(map_, findings(map_)))
    if shown is not StatusFormat.TABLE:  # the table has colours, and its text is made visible already
        text = visible(text)
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text)
        typer.echo(f"{output}: {overview.sentence(standings)}", err=True)
    raise typer.Exit(is_breached(standings))


@app.command("map")
def draw(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Repositories, as they are here.", show_default="what fleet.toml lists")
    ] = None,
    *,
    config: Config = FLEET,
    shown: Annotated[MapFormat, typer.Option("--format", help="mermaid: for Markdown.")] = MapFormat.TABLE,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there.", show_default="stdout")] = None,
    around: Annotated[str | None, typer.Option(metavar="NAME", help="Only this service and its neighbours.")] = None,
    calls: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Calls in a row that are allowed.", show_default="2")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Make do with what was fetched before.")] = False,
) -> None:
    """Say who calls whom, and who hears of what. Status 1 if any of it does not fit together."""
    from fleet.findings import Level
    from fleet.map import gather, show
    from fleet.map.about_calls import LIMIT
    from fleet.map.findings import findings
    from fleet.map.mermaid import mermaid
    from fleet.map.svg import svg
    from fleet.register import members

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    whole = gather.of_folders(paths) if paths else gather.of_members(members(config))
    map_ = whole.around(around) if around else whole
    found = [one for one in findings(whole, calls or LIMIT) if not around or around in one.services]
    if shown is MapFormat.TABLE:
        text = show.table(map_, found, width=_width(output))
    elif shown is MapFormat.JSON:
        text = show.as_json(map_, found)
    else:
        text = svg(map_, found) if shown is MapFormat.SVG else mermaid(map_, found)
    if shown is not MapFormat.TABLE:
        text = visible(text)
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text)
        typer.echo(f"{output}: {show.summary(map_, found)}", err=True)
    raise typer.Exit(any(one.finding.level is Level.ERROR for one in found))


@app.command()
def update(
    path: Where = Path(),
    *,
    answers: Data = None,
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
    whole_fleet: Annotated[
        bool, typer.Option("--all", help="Every service of fleet.toml: each in a clone, on a branch slipway/VERSION.")
    ] = False,
    config: Config = FLEET,
    test: Annotated[bool, typer.Option(help="With --all: run `make check` on each.")] = True,
    push: Annotated[bool, typer.Option("--push", help="With --all: push each branch that passes.")] = False,
    work: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --all: for clones and logs.", show_default="beside fleet.toml"),
    ] = None,
    jobs: Jobs = None,
    template: Trusted = None,
) -> None:
    """Bring a service to a template version: the platform's files anew, the team's as they are. All of it or nothing.

    Status 1: not possible, and nothing was changed; with --all: not all of them. 3: updated, but `make specs` failed.
    """
    if whole_fleet:
        if path != Path() or answers or keep_branch or seed_diffs or not finish:
            raise FleetError(
                "--all takes the services from fleet.toml: only --config, --to, --[no-]test, --push, --work and --jobs go with it"
            )
        from fleet import show_all
        from fleet.register import members
        from fleet.update_all import FOLDER, Wish, update_all

        listed = members(config)
        _trust(template, config)
        outcomes = update_all(listed, work or config.parent / FOLDER, Wish(to or "", test, push), jobs)
        show_all.outcomes(outcomes)
        raise typer.Exit(any(outcome.failure for outcome in outcomes))
    from fleet import show
    from fleet.update import Options, update

    _trust(template)
    report = update(path, Options(_data(answers), to, keep_branch, finish))
    show.report(report, seed_diffs=seed_diffs)
    raise typer.Exit(3 if report.unfinished else 0)


@app.command()
def new(
    name: Annotated[Path, typer.Argument(help="The service's name, and the folder to write it to.")],
    *,
    template: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="FLEET_TEMPLATE", help="The template.", show_default="where fleet is from"),
    ] = None,
    answers: Data = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Ask nothing: defaults for what -d leaves open.")
    ] = False,
) -> None:
    """Make a service: the questions, the boundary review, then what `copier copy` does."""
    from fleet.new import new, template_address

    new(name, template or template_address(), _data(answers), defaults=defaults)


def _trust(named: list[str] | None, config: Path | None = None) -> None:
    """Let only the platform's template be fetched and run. Raises FleetError if that template is not known."""
    from fleet.installed import repository
    from fleet.register import templates
    from fleet.trust import is_decided, trust

    named = named or (templates(config) if config else [])
    if named or not is_decided():
        trust(named or [repository()])


def _width(output: Path | None) -> int | None:
    """The width of a table that is written to a file, if it is."""
    return None if output is None else WIDE


def _write(output: Path, text: str) -> None:
    from fleet.cache import write_whole

    if output.exists() and not output.is_file():  # /dev/stdout
        output.write_text(text, encoding="utf-8", errors="backslashreplace")
    else:
        write_whole(output.resolve(), text)


def _data(answers: list[str] | None) -> dict[str, str]:
    data = {}
    for answer in answers or []:
        name, separator, value = answer.partition("=")
        if not separator:
            raise FleetError(f"-d wants KEY=VALUE, not {answer!r}")
        data[name] = value
    return data


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name of a file need not be UTF-8, nor what a terminal shows.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except FleetError as error:
        _fail(str(error))
    except OSError as error:
        _fail(refused(error))


def _fail(message: str) -> NoReturn:
    warn(message)
    raise SystemExit(1) from None
