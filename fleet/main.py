"""The command line. What takes long to import is imported by the command that needs it."""

import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

import click

from fleet.errors import FleetError, refused
from fleet.output import WIDE, visible, warn

PATH = click.Path(path_type=Path)
FLEET = Path("fleet.toml")

config_option = click.option(
    "--config", type=PATH, metavar="FILE", default=FLEET, show_default=True, help="What lists the services."
)
data_option = click.option(
    "answers", "--data", "-d", multiple=True, metavar="KEY=VALUE", help="Give an answer. Repeatable."
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), show_default="one for each core", help="Processes at a time."
)
offline_option = click.option("--offline", is_flag=True, help="Make do with what was fetched before.")
output_option = click.option("--output", type=PATH, metavar="FILE", show_default="stdout", help="Write it there.")
path_argument = click.argument(
    "path", type=PATH, default=Path(), help="A service's repository; this folder if not given."
)
to_option = click.option("--to", metavar="VERSION", show_default="newest", help="A version of the template.")
template_option = click.option(
    "--template",
    multiple=True,
    metavar="URL",
    envvar="FLEET_TEMPLATE",
    show_envvar=True,
    show_default="what fleet.toml names, else where fleet is from",
    help="The platform's template: a service that names another one is refused. Repeatable.",
)


def _format(*choices: str, help: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option `--format`; the first of these is the default."""
    return click.option(
        "shown", "--format", type=click.Choice(choices), default=choices[0], show_default=True, help=help
    )


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from fleet.template.installed import version

        click.echo(version())
        context.exit()


@click.group()
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say which fleet this is."
)
def app() -> None:
    """Services of this platform, kept like its template."""


@app.command()
@path_argument
@click.option("only_drift", "--drift", is_flag=True, help="Only compare with the template.")
@click.option("--ref", help="A commit to look at, instead of the working copy.")
@click.option("--base", show_default="the remote's default branch", help="What it will be merged into.")
@_format("table", "json", "github", help="github: annotations.")
@template_option
def check(
    path: Path, *, only_drift: bool, ref: str | None, base: str | None, shown: str, template: tuple[str, ...]
) -> None:
    """Say in one table what a service does otherwise than the platform. Status 1 if any of it is an error."""
    from fleet.check import check as checking
    from fleet.check import show as show_check
    from fleet.check.findings import Level

    _trust(template)
    report = checking.check(checking.Wish(path, ref, base, only_drift))
    if shown == "table":
        show_check.table(report)
    else:
        text = show_check.github(report.findings) if shown == "github" else show_check.as_json(report)
        click.echo(visible(text))
    raise SystemExit(any(finding.level is Level.ERROR for finding in report.findings))


@app.command()
@config_option
@_format("table", "json", "markdown", "html")
@output_option
@offline_option
@jobs_option
@template_option
def status(
    *, config: Path, shown: str, output: Path | None, offline: bool, jobs: int | None, template: tuple[str, ...]
) -> None:
    """Say how every service stands: version, drift, conventions, waivers. Status 1 if one breaks the policy or cannot be read."""
    from fleet.conventions import conventions
    from fleet.service.register import members
    from fleet.status import show as show_status
    from fleet.status.status import is_breached, status

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    listed = members(config)
    _trust(template, config)
    standings = status(listed, jobs)
    if shown == "table":
        text = show_status.table(standings, width=_width(output))
    elif shown == "json":
        text = show_status.as_json(standings)
    else:
        from fleet.map import gather, show
        from fleet.map.findings import findings
        from fleet.page import page

        map_ = gather.of_standings(listed, standings)
        if shown == "html":
            links = {standing.name: f"#s{number}" for number, standing in enumerate(standings, 1)}
            text = page(standings, conventions(), show.html(map_, findings(map_), links))
        else:
            text = show_status.markdown(standings, show.markdown(map_, findings(map_)))
    if shown != "table":  # the table has colours, and its text is made visible already
        text = visible(text)
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)
        click.echo(f"{output}: {show_status.sentence(standings)}", err=True)
    raise SystemExit(is_breached(standings))


@app.command("map")
@click.argument("paths", type=PATH, nargs=-1, help="Repositories, as they are here; those of fleet.toml if not given.")
@config_option
@_format("table", "mermaid", "svg", "json", help="mermaid: for Markdown.")
@output_option
@click.option("--around", metavar="NAME", help="Only this service and its neighbours.")
@click.option("--calls", type=click.IntRange(1), metavar="N", show_default="2", help="Calls in a row that are allowed.")
@offline_option
@jobs_option
def draw(
    paths: tuple[Path, ...],
    *,
    config: Path,
    shown: str,
    output: Path | None,
    around: str | None,
    calls: int | None,
    offline: bool,
    jobs: int | None,
) -> None:
    """Say who calls whom, and who hears of what. Status 1 if any of it does not fit together."""
    from fleet.check.findings import Level
    from fleet.map import gather, show
    from fleet.map.about_calls import LIMIT
    from fleet.map.findings import findings
    from fleet.map.mermaid import mermaid
    from fleet.map.svg import svg
    from fleet.service.register import members

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    whole = gather.of_folders(list(paths), jobs) if paths else gather.of_members(members(config), jobs)
    map_ = whole.around(around) if around else whole
    found = [one for one in findings(whole, calls or LIMIT) if not around or around in one.services]
    if shown == "table":
        text = show.table(map_, found, width=_width(output))
    elif shown == "json":
        text = show.as_json(map_, found)
    else:
        text = svg(map_, found) if shown == "svg" else mermaid(map_, found)
    if shown != "table":
        text = visible(text)
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)
        click.echo(f"{output}: {show.summary(map_, found)}", err=True)
    raise SystemExit(any(one.finding.level is Level.ERROR for one in found))


@app.command()
@path_argument
@data_option
@to_option
@click.option("--keep-branch", is_flag=True, help="If it fails, keep the branch fleet-update for inspection.")
@click.option(
    "--finish/--no-finish",
    default=True,
    show_default=True,
    help="Then run `make specs`, and commit uv.lock and specs/.",
)
@click.option("--seed-diffs", is_flag=True, help="Show how seeds changed that the service has its own copy of.")
@template_option
def update(
    path: Path,
    *,
    answers: tuple[str, ...],
    to: str | None,
    keep_branch: bool,
    finish: bool,
    seed_diffs: bool,
    template: tuple[str, ...],
) -> None:
    """Bring a service to a template version: the platform's files anew, the team's as they are. All of it or nothing.

    Status 1: not possible, and nothing was changed. 3: updated, but `make specs` failed.
    """
    from fleet.update import show
    from fleet.update.update import Options, update

    _trust(template)
    report = update(path, Options(_data(answers), to, keep_branch, finish))
    show.report(report, seed_diffs=seed_diffs)
    raise SystemExit(3 if report.unfinished else 0)


@app.command("update-all")
@config_option
@to_option
@click.option("--test/--no-test", default=True, show_default=True, help="Run `make check` on each.")
@click.option("--push", is_flag=True, help="Push each branch that passes.")
@click.option("--work", type=PATH, metavar="FOLDER", show_default="beside fleet.toml", help="For clones and logs.")
@jobs_option
@template_option
def update_all(
    *,
    config: Path,
    to: str | None,
    test: bool,
    push: bool,
    work: Path | None,
    jobs: int | None,
    template: tuple[str, ...],
) -> None:
    """Update every service of fleet.toml: each in a clone, on a branch slipway/VERSION. Status 1 if any update fails."""
    from fleet.service.register import members
    from fleet.update import show
    from fleet.update.update_all import FOLDER, Wish, update_all

    listed = members(config)
    _trust(template, config)
    outcomes = update_all(listed, work or config.parent / FOLDER, Wish(to or "", test, push), jobs)
    show.outcomes(outcomes)
    raise SystemExit(any(outcome.failure for outcome in outcomes))


@app.command()
@click.argument("name", type=PATH, help="The service's name, and the folder to write it to.")
@click.option(
    "--template",
    metavar="URL",
    envvar="FLEET_TEMPLATE",
    show_envvar=True,
    show_default="where fleet is from",
    help="The template.",
)
@data_option
@click.option("--defaults", is_flag=True, help="Ask nothing: defaults for what -d leaves open.")
def new(name: Path, *, template: str | None, answers: tuple[str, ...], defaults: bool) -> None:
    """Make a service: the questions, the boundary review, then what `copier copy` does."""
    from fleet.new import new, template_address

    new(name, template or template_address(), _data(answers), defaults=defaults)


def _trust(named: Sequence[str], config: Path | None = None) -> None:
    """Let only the platform's template be fetched and run. Raises FleetError if that template is not known."""
    from fleet.service.register import templates
    from fleet.template.installed import repository
    from fleet.template.trust import is_decided, trust

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


def _data(answers: tuple[str, ...]) -> dict[str, str]:
    data = {}
    for answer in answers:
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
        try:
            app()
        except OSError as error:
            _fail(refused(error))
    except FleetError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    warn(message)
    raise SystemExit(1) from None
