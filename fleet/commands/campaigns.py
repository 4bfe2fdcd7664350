"""`fleet campaign` and `fleet nudge`."""

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.options import (
    PATH,
    choose_day,
    choose_policy,
    config_option,
    day_option,
    fleet_policy_option,
    format_option,
    jobs_option,
    offline_option,
    output_option,
    platform_templates,
    print_report,
    table_width,
    template_option,
    trust_templates,
)
from fleet.output import visible

if TYPE_CHECKING:
    from fleet.campaign.progress import Progress


@click.command()
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
    else:  # the table has colours, and has made its text visible itself
        text = "\n".join(show.table(one, width=table_width(output)) for one in found)
    print_report(output, text, *(visible(show.sentence(one)) for one in found))
    raise SystemExit(any(one.is_late for one in found))


@click.command()
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
    from fleet.service.fleet_toml import forges

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
    from fleet.service.fleet_toml import members

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    choose_day(day)
    listed = members(config)
    trust_templates(template, config)
    choose_policy(policy, config)
    return gather(listed, platform_templates(template, config), name, jobs)
