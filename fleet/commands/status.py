"""`fleet status`."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.errors import FleetError
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
from fleet.output import visible, warn

if TYPE_CHECKING:
    from fleet.boundaries.boundaries import Report
    from fleet.campaign.progress import Progress
    from fleet.check.standing import Standing
    from fleet.service.fleet_toml import Member


@click.command()
@config_option
@format_option("table", "json", "markdown", "html")
@output_option
@click.option(
    "--page", "folder", type=PATH, metavar="FOLDER", help="Write the page, and one for each owner, there as well."
)
@click.option(
    "--record", type=PATH, metavar="FILE", help="Keep a line for today there, and draw the progress in the page."
)
@click.option(
    "--boundaries", is_flag=True, help="Show the questions about boundaries in the page: it reads all histories."
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
    boundaries: bool,
    offline: bool,
    jobs: int | None,
    policy: Path | None,
    day: datetime | None,
    template: tuple[str, ...],
) -> None:
    """Show the state of every service: version, drift, conventions, waivers. Status 1 if any breaks the policy or is unreadable."""
    from fleet.service.fleet_toml import forges, members
    from fleet.status import show as show_status
    from fleet.status.status import is_breached, status

    if boundaries and not (folder or shown == "html"):
        raise FleetError("--boundaries adds a section to the page: add --page or --format html, or ask `fleet map`")
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
        from fleet.conventions import conventions
        from fleet.page import Content, page, write_pages
        from fleet.page.report import gather

        asked = _ask(listed, jobs) if boundaries else None
        campaigns = _campaigns(platform_templates(template, config), standings)
        content = Content(standings, conventions(), days=days, kinds=kinds, campaigns=campaigns, boundaries=asked)
        content = gather(listed, content)
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
    if shown != "table":  # the table has colours, and has made its text visible itself
        text = visible(text)
    print_report(output, text, f"{output}: {show_status.sentence(standings)}")
    raise SystemExit(is_breached(standings))


def _ask(listed: "list[Member]", jobs: int | None) -> "Report":
    """Find the questions about the boundaries of services."""
    from fleet.boundaries.boundaries import ask, sources_of_members

    return ask(*sources_of_members(listed), jobs=jobs)


def _campaigns(templates: Sequence[str], standings: "list[Standing]") -> "list[Progress]":
    """Measure the campaigns. A policy that cannot be read is reported, and the page has no campaigns."""
    from fleet.campaign.command import measure_all

    try:
        return measure_all(templates, standings)
    except FleetError as error:
        warn(f"the page has no campaigns: {error}")
        return []
