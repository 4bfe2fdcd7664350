"""The command line. Each command imports the modules that it needs, because their imports take long."""

import os
import sys
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from fleet.errors import FleetError, describe_os_error
from fleet.options import (
    PATH,
    choose_day,
    choose_policy,
    config_option,
    data_option,
    day_option,
    fleet_policy_option,
    format_option,
    jobs_option,
    offline_option,
    output_option,
    parse_answers,
    path_argument,
    platform_templates,
    policy_option,
    table_width,
    template_option,
    to_option,
    trust_templates,
    write_report,
)
from fleet.output import visible, warn

if TYPE_CHECKING:  # only the commands of campaigns need this import
    from fleet.campaign.progress import Progress


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from fleet.template.installation import version

        click.echo(version())
        context.exit()


@click.group()
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version of fleet."
)
def app() -> None:
    """Check and update the services that are made from the platform's template."""


@app.command()
@path_argument
@click.option("only_drift", "--drift", is_flag=True, help="Only compare with the template.")
@click.option("--ref", help="A commit to check instead of the working copy.")
@click.option("--base", show_default="the remote's default branch", help="The branch or commit to merge into.")
@format_option("table", "json", "github", help="github: annotations.")
@policy_option
@template_option
def check(
    path: Path,
    *,
    only_drift: bool,
    ref: str | None,
    base: str | None,
    shown: str,
    policy: Path | None,
    template: tuple[str, ...],
) -> None:
    """Show in one table where a service differs from the platform. Status 1 if any finding is an error."""
    from fleet.check import check as checking
    from fleet.check import show as show_check
    from fleet.check.findings import Level

    trust_templates(template)
    choose_policy(policy)
    report = checking.check(checking.Options(path, ref, base, only_drift))
    if shown == "table":
        show_check.table(report)
    else:
        text = show_check.github(report.findings) if shown == "github" else show_check.as_json(report)
        click.echo(visible(text))
    raise SystemExit(any(finding.level is Level.ERROR for finding in report.findings))


@app.command()
@config_option
@format_option("table", "json", "markdown", "html")
@output_option
@click.option(
    "--page", "folder", type=PATH, metavar="FOLDER", help="Write the page, and one for each owner, there as well."
)
@click.option(
    "--record", type=PATH, metavar="FILE", help="Keep a line for today there, and draw the progress in the page."
)
@offline_option
@jobs_option
@fleet_policy_option
@day_option
@template_option
def status(
    *,
    config: Path,
    shown: str,
    output: Path | None,
    folder: Path | None,
    record: Path | None,
    offline: bool,
    jobs: int | None,
    policy: Path | None,
    day: datetime | None,
    template: tuple[str, ...],
) -> None:
    """Show the state of every service: version, drift, conventions, waivers. Status 1 if any breaks the policy or is unreadable."""
    from fleet.service.register import forges, members
    from fleet.status import show as show_status
    from fleet.status.status import is_breached, status

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    choose_day(day)
    listed, kinds = members(config), forges(config)
    trust_templates(template, config)
    choose_policy(policy, config)
    standings = status(listed, jobs)
    days = []
    if record:
        from fleet.history import remember

        days = remember(record, standings)
    if folder or shown == "html":
        from fleet.page import page, write_pages
        from fleet.page.report import gather

        content = gather(listed, standings, days, kinds)
        if folder:
            write_pages(folder, content)
    if shown == "table":
        text = show_status.table(standings, width=table_width(output))
    elif shown == "json":
        text = show_status.as_json(standings)
    elif shown == "html":
        text = page(content)
    else:
        from fleet.map import reader, show
        from fleet.map.findings import findings

        map_ = reader.read_standings(listed, standings)
        text = show_status.markdown(standings, show.markdown(map_, findings(map_)))
    if shown != "table":  # the table has colours, and its text is made visible already
        text = visible(text)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_report(output, text)
        click.echo(f"{output}: {show_status.sentence(standings)}", err=True)
    raise SystemExit(is_breached(standings))


@app.command()
@click.argument("name", required=False)
@config_option
@format_option("table", "json")
@output_option
@offline_option
@jobs_option
@fleet_policy_option
@day_option
@template_option
def campaign(
    name: str | None,
    *,
    config: Path,
    shown: str,
    output: Path | None,
    offline: bool,
    jobs: int | None,
    policy: Path | None,
    day: datetime | None,
    template: tuple[str, ...],
) -> None:
    """Show who has reached the goal of a campaign in policy.toml, and whom to ask. Status 1 if its day is over before all have.

    Without NAME all campaigns are shown.
    """
    from fleet.campaign import show

    found = _measure(config, template, name, jobs, offline=offline, policy=policy, day=day)
    if shown == "json":
        text = visible(show.as_json(found))
    else:  # the table has colours, and its text is made visible already
        text = "\n".join(show.table(one, width=table_width(output)) for one in found)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_report(output, text)
        for one in found:
            click.echo(visible(show.sentence(one)), err=True)
    raise SystemExit(any(one.is_late for one in found))


@app.command()
@click.argument("name")
@config_option
@click.option("--output", type=PATH, metavar="FOLDER", show_default="nudges/NAME", help="The folder for the texts.")
@click.option("open_", "--open", is_flag=True, help="Open an issue in each repository, by gh or glab.")
@offline_option
@jobs_option
@fleet_policy_option
@day_option
@template_option
def nudge(
    name: str,
    *,
    config: Path,
    output: Path | None,
    open_: bool,
    offline: bool,
    jobs: int | None,
    policy: Path | None,
    day: datetime | None,
    template: tuple[str, ...],
) -> None:
    """Write an issue for each owner whose services have not reached the goal of a campaign. Status 1 if an issue cannot be opened.

    The texts are Markdown files in nudges/NAME. With --open, gh (GitHub) or glab (GitLab) opens an issue in the repository of each
    service, unless an issue of the campaign is open there. They have to be installed and signed in.
    """
    from fleet.campaign import nudge as nudging
    from fleet.campaign.trackers import tracker_of
    from fleet.service.register import forges

    (progress,) = _measure(config, template, name, jobs, offline=offline, policy=policy, day=day)
    for file, issue in nudging.write_issues(progress, output or Path("nudges") / name).items():
        click.echo(visible(nudging.describe(file, issue)))
    if not progress.open:
        click.echo(f"{name}: there is nobody to ask")
    opened = []
    if open_:
        kinds = forges(config)
        opened = nudging.open_issues(progress, lambda address: tracker_of(address, kinds))
        for one in opened:
            click.echo(visible(f"{one.service}: {one.line}"))
    raise SystemExit(any(one.is_failure for one in opened))


def _measure(
    config: Path,
    template: tuple[str, ...],
    name: str | None,
    jobs: int | None,
    *,
    offline: bool,
    policy: Path | None,
    day: datetime | None,
) -> "list[Progress]":
    """Measure one or all campaigns, with the options that their commands share."""
    from fleet.campaign.command import gather
    from fleet.service.register import members

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    choose_day(day)
    listed = members(config)
    trust_templates(template, config)
    choose_policy(policy, config)
    return gather(listed, platform_templates(template, config), name, jobs)


@app.command("map")
@click.argument("paths", type=PATH, nargs=-1, help="Repositories on this machine. Default: the services of fleet.toml.")
@config_option
@format_option("table", "mermaid", "svg", "html", "json", help="mermaid: for Markdown; html: to search and zoom.")
@output_option
@click.option("--around", metavar="NAME", help="Only this service and its neighbours.")
@click.option("--calls", type=click.IntRange(1), metavar="N", show_default="2", help="Calls in a row that are allowed.")
@click.option("--boundaries", is_flag=True, help="Ask by their histories whether these are still the right services.")
@click.option("--traces", type=PATH, metavar="FILE", help="With --boundaries: traces in OTLP, a line for each batch.")
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
    boundaries: bool,
    traces: Path | None,
    offline: bool,
    jobs: int | None,
) -> None:
    """Show calls and messages between services. Status 1 if any of them do not match. With --boundaries the status is 0."""
    from fleet.check.findings import Level
    from fleet.map import reader, show
    from fleet.map.call_findings import LIMIT
    from fleet.map.findings import findings
    from fleet.map.mermaid import mermaid
    from fleet.map.svg import svg
    from fleet.page.map_page import map_page
    from fleet.service.register import members

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    if boundaries:
        if around or calls or shown not in ("table", "json"):
            raise FleetError("--boundaries has the forms table and json, and takes neither --around nor --calls")
        _ask(paths, config, shown, output, traces, jobs)
        return
    if traces:
        raise FleetError("--traces is read for questions about boundaries: add --boundaries")
    choose_policy(None, config)
    whole = reader.read_folders(list(paths), jobs) if paths else reader.read_members(members(config), jobs)
    map_ = whole.around(around) if around else whole
    found = [one for one in findings(whole, calls or LIMIT) if not around or around in one.services]
    if shown == "table":
        text = show.table(map_, found, width=table_width(output))
    elif shown == "json":
        text = show.as_json(map_, found)
    elif shown == "html":
        text = map_page(show.html(map_, found))
    else:
        text = svg(map_, found) if shown == "svg" else mermaid(map_, found)
    if shown != "table":
        text = visible(text)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_report(output, text)
        click.echo(f"{output}: {show.summary(map_, found)}", err=True)
    raise SystemExit(any(one.finding.level is Level.ERROR for one in found))


def _ask(
    paths: tuple[Path, ...], config: Path, shown: str, output: Path | None, traces: Path | None, jobs: int | None
) -> None:
    """Print the questions about the boundaries of services."""
    from fleet.boundaries import boundaries as asking
    from fleet.boundaries import show
    from fleet.boundaries.traces import read
    from fleet.service.register import members

    traffic = read(traces) if traces else None
    found = asking.sources_of(paths) if paths else asking.sources_of_members(members(config))
    report = asking.ask(*found, traffic, jobs)
    text = show.text(report, width=table_width(output)) if shown == "table" else visible(show.as_json(report))
    if output is None:
        click.echo(text, nl=False)
    else:
        write_report(output, text)
        click.echo(f"{output}: {show.summary(report)}", err=True)


@app.command()
@path_argument
@config_option
@click.option("--base", show_default="the remote's default branch", help="The branch or commit to merge into.")
@format_option("table", "json", "github", help="github: annotations.")
@offline_option
@jobs_option
def impact(path: Path, *, config: Path, base: str | None, shown: str, offline: bool, jobs: int | None) -> None:
    """Name the services that a change of this service breaks, by HTTP or by message. Status 1 if any breaks.

    The services of fleet.toml are read at their newest commits, and this service as it is in the working copy.
    """
    from fleet.check.findings import Level
    from fleet.impact import show
    from fleet.impact.impact import find_impact
    from fleet.service.register import members

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    choose_policy(None, config)
    found = find_impact(path, base, members(config), jobs)
    if shown == "table":  # the table has colours, and its text is made visible already
        text = show.table(found)
    else:
        text = visible(show.as_json(found) if shown == "json" else show.github(found))
    click.echo(text, nl=False)
    raise SystemExit(any(one.finding.level is Level.ERROR for one in found.broken))


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
@click.option("--seed-diffs", is_flag=True, help="Show the changes of seeds of which the service has a copy.")
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
    """Bring a service to a template version: write the platform's files anew, and leave the team's files unchanged.

    Status 1: the update was not possible, and no file was changed. 3: the service was updated, but `make specs` failed.
    """
    from fleet.update import show
    from fleet.update.update import Options, update

    trust_templates(template)
    report = update(path, Options(parse_answers(answers), to, keep_branch, finish))
    show.report(report, seed_diffs=seed_diffs)
    raise SystemExit(3 if report.unfinished else 0)


@app.command("update-all")
@config_option
@to_option
@click.option("--test/--no-test", default=True, show_default=True, help="Run `make check` on each.")
@click.option("--push", is_flag=True, help="Push each branch that passes.")
@click.option(
    "open_", "--open", is_flag=True, help="With --push: open a pull or merge request for each, by gh or glab."
)
@click.option("--report", type=PATH, metavar="FILE", help="Write an HTML page there, with the result of each service.")
@click.option("--work", type=PATH, metavar="FOLDER", show_default="next to fleet.toml", help="For clones and logs.")
@jobs_option
@template_option
def update_all(
    *,
    config: Path,
    to: str | None,
    test: bool,
    push: bool,
    open_: bool,
    report: Path | None,
    work: Path | None,
    jobs: int | None,
    template: tuple[str, ...],
) -> None:
    """Update every service of fleet.toml: each in a clone, on a branch slipway/VERSION. Status 1 if any update fails.

    With --push the commands that open the pull and merge requests are printed, unless --open runs them. gh (GitHub) or glab
    (GitLab) has to be installed and signed in for that. Status 1 also if --open cannot open a request.
    """
    from fleet.service.register import forges, members
    from fleet.update import show
    from fleet.update.outcomes import RunOptions
    from fleet.update.requests import requests
    from fleet.update.update_all import FOLDER, update_all

    if open_ and not push:
        raise FleetError("--open opens requests for branches at the Git host: add --push")
    listed, kinds = members(config), forges(config)
    trust_templates(template, config)
    choose_policy(None, config)
    outcomes = update_all(listed, work or config.parent / FOLDER, RunOptions(to or "", test, push), jobs)
    opened = requests(listed, outcomes, kinds, is_asked=open_) if push else []
    show.outcomes(outcomes)
    show.requests(opened, is_asked=open_)
    if report:
        from fleet.page.update_page import gather, update_page

        write_report(report, visible(update_page(gather(listed, outcomes, opened, kinds))))
        click.echo(f"The report is in {report}", err=True)
    has_failed = any(outcome.failure for outcome in outcomes) or (open_ and any(one.problem for one in opened))
    raise SystemExit(has_failed)


@app.command()
@click.argument("name", type=PATH, help="The service's name, and the folder to write it to.")
@click.option(
    "--template",
    metavar="URL",
    envvar="FLEET_TEMPLATE",
    show_envvar=True,
    show_default="the origin of fleet",
    help="The template.",
)
@data_option
@click.option("--defaults", is_flag=True, help="Ask nothing, and use defaults for all answers without -d.")
def new(name: Path, *, template: str | None, answers: tuple[str, ...], defaults: bool) -> None:
    """Make a service: ask the questions, show the boundary review, then write what `copier copy` writes."""
    from fleet.new import new, template_address

    new(name, template or template_address(), parse_answers(answers), defaults=defaults)


@app.command()
@path_argument
def peers(path: Path) -> None:
    """Let a service out to its neighbours: add the NetworkPolicies that are missing to peers.yaml of each overlay.

    specs/uses, and consumesApis in catalog-info.yaml, name the neighbours.
    """
    from fleet.map.peers import write_peers

    for line in write_peers(path) or ["no policy is missing"]:
        click.echo(visible(line))


@app.command()
@click.argument("name", required=False)
@click.argument("operations", nargs=-1, metavar="[OPERATION]...")
@click.option("--from", "source", metavar="SOURCE", help="An OpenAPI file, a folder or a git address.")
@config_option
@click.option("--force", is_flag=True, help="Replace what the team has changed by the neighbour's document of today.")
@click.option("--check", "only_check", is_flag=True, help="Write nothing. Status 1 if code and specs/uses differ.")
def client(
    *, name: str | None, operations: tuple[str, ...], source: str | None, config: Path, force: bool, only_check: bool
) -> None:
    """Write typed functions for operations of another service. NAME is its entry in fleet.toml, unless --from is given.

    Run it in the folder of the service that calls. The operations and the schemas that they need are copied to
    specs/uses/NAME.json. Without operations, the functions are written again from that file. Status 1: an operation was
    refused, or nothing was written.
    """
    from fleet.client.client import Options, check_clients, write_client

    if only_check:
        faults = check_clients(Path(), (name,) if name else ())
        for fault in faults:
            warn(fault)
        raise SystemExit(bool(faults))
    if name is None:
        raise FleetError("name the service to call, as in `fleet client customers get_customer`")
    report = write_client(Path(), name, Options(operations, source, config, force))
    for line in report.lines:
        click.echo(visible(line))
    for operation, reason in report.refused.items():
        warn(f"{operation} was refused: {reason}")
    raise SystemExit(bool(report.refused))


@app.command()
@click.argument("message")
@click.option("--fields", metavar="A,B", show_default="all of them", help="The fields that this service reads.")
@click.option("--from", "source", metavar="SOURCE", help="An AsyncAPI file, a folder or a git address.")
@config_option
@click.option("--force", is_flag=True, help="Replace the contract and the agreed body by the sender's of today.")
def listen(*, message: str, fields: str | None, source: str | None, config: Path, force: bool) -> None:
    """Write what this service needs to handle a message of another service, as in billing.invoice-issued.v1.

    Run it in the folder of the service that listens. The sender is the first part of the name, an entry in fleet.toml, unless
    --from is given. The command writes the contract with its handler, a use case to complete, the agreed body, and a test.
    Status 1: nothing was written.
    """
    from fleet.listen.listen import Options
    from fleet.listen.listen import listen as write_listener

    wanted = tuple(one.strip() for one in (fields or "").split(",") if one.strip())
    for line in write_listener(Path(), message, Options(wanted, source, config, force)):
        click.echo(visible(line.rstrip("\n")))


@app.command()
@click.argument(
    "folders", type=PATH, nargs=-1, help="Checkouts of services. Default: those of fleet.toml that are here."
)
@config_option
@click.option("--only", multiple=True, metavar="NAME", help="Start only this service. Repeatable.")
@click.option("--without", multiple=True, metavar="NAME", help="Start all services but this one. Repeatable.")
@click.option("--around", metavar="NAME", help="Start this service and its neighbours, and stubs for those beyond.")
@click.option("--clone", is_flag=True, help="Clone the services of fleet.toml that have no checkout here, next to it.")
@click.option(
    "--broker-url",
    "urls",
    multiple=True,
    metavar="URL",
    envvar="FLEET_BROKER_URL",
    help="A broker that runs already. Repeatable. FLEET_BROKER_URL hides a password from the list of processes.",
)
@click.option("--fresh", is_flag=True, help="First delete databases, messages, traces and logs of earlier runs.")
@click.option("--keep", is_flag=True, help="Keep the page's traces and log lines of the run before, and of this run.")
@click.option("--otlp", metavar="URL", help="Send spans and metrics to this OTLP/HTTP receiver instead of the page.")
@click.option("--detach", is_flag=True, help="Return once the services have started. `fleet down` ends them.")
@click.option(
    "--status", "only_status", is_flag=True, help="Start nothing, and show the run. Status 1 if a service is not ready."
)
@format_option("table", "json", help="The form of --status.")
def up(
    folders: tuple[Path, ...],
    *,
    config: Path,
    only: tuple[str, ...],
    without: tuple[str, ...],
    around: str | None,
    clone: bool,
    urls: tuple[str, ...],
    fresh: bool,
    keep: bool,
    otlp: str | None,
    detach: bool,
    only_status: bool,
    shown: str,
) -> None:
    """Run the services of a product on this machine, with one database, one broker, one issuer and one page for all.

    This runs the code of the services, as you. Each service runs in its own environment, and restarts after a save. Data and
    logs are in .fleet/ next to fleet.toml. Ctrl-C ends all.
    """
    from fleet.up import command
    from fleet.up.product import select

    memory = command.memory(config)
    if only_status:
        raise SystemExit(not command.status(memory, as_json=shown == "json"))
    if around and only:
        raise FleetError("--around chooses the services to start: leave out --only, or name services by --without")
    selection = select(folders, config, only=only, without=without, clone=clone)
    if around:
        from fleet.up.around import around as narrow

        selection = narrow(around, selection, config)
    wanted = command.Wanted(
        selection, memory, command.brokers(urls), fresh, keep, command.receiver(otlp) if otlp else ""
    )
    if detach:
        arguments = [*map(str, folders), f"--config={config}"]
        arguments += [flag for flag, is_given in (("--fresh", fresh), ("--keep", keep)) if is_given]
        lists = {"only": only, "without": without, "around": filter(None, [around]), "otlp": filter(None, [otlp])}
        arguments += [f"--{name}={value}" for name, values in lists.items() for value in values]
        raise SystemExit(not command.detach(wanted, arguments))
    raise SystemExit(not command.up(wanted))


@app.command()
@config_option
def down(*, config: Path) -> None:
    """End the services that `fleet up` runs."""
    from fleet.up import command

    command.down(command.memory(config))


@app.command()
@click.argument("name")
@config_option
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
def logs(name: str, *, config: Path, follow: bool) -> None:
    """Show what a service has written under `fleet up`."""
    from fleet.up import command

    command.logs(command.memory(config), name, follow=follow)


@app.command()
@click.argument("name")
@config_option
def restart(name: str, *, config: Path) -> None:
    """Restart a service that `fleet up` runs, with `make setup` if needed. Status 1 if the service is not ready then."""
    from fleet.up import command

    raise SystemExit(not command.restart(command.memory(config), name))


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # The name of a file need not be UTF-8, and neither need the terminal be.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        except OSError as error:
            _fail(describe_os_error(error))
    except FleetError as error:
        _fail(str(error))
    finally:
        from fleet.cache import prune

        prune()


def _fail(message: str) -> NoReturn:
    warn(message)
    raise SystemExit(1) from None
