"""`fleet impact`."""

import os
from pathlib import Path

import click

from fleet.options import (
    choose_policy,
    config_option,
    format_option,
    jobs_option,
    offline_option,
    path_argument,
    trust_known_templates,
)
from fleet.output import visible


@click.command()
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
    from fleet.service.fleet_toml import members

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    trust_known_templates(config)
    choose_policy(None, config)
    found = find_impact(path, base, members(config), jobs)
    if shown == "table":  # the table has colours, and has made its text visible itself
        text = show.table(found)
    else:
        text = visible(show.as_json(found) if shown == "json" else show.github(found))
    click.echo(text, nl=False)
    raise SystemExit(any(one.finding.level is Level.ERROR for one in found.broken))
