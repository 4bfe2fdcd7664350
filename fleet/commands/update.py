"""`fleet update` and `fleet update-all`."""

from pathlib import Path

import click

from fleet.errors import FleetError
from fleet.options import (
    PATH,
    choose_policy,
    config_option,
    data_option,
    jobs_option,
    parse_answers,
    path_argument,
    template_option,
    to_option,
    trust_templates,
    write_report,
)
from fleet.output import visible


@click.command()
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


@click.command("update-all")
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
    from fleet.service.fleet_toml import forges, members
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
