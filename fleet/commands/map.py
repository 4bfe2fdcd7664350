"""`fleet map`."""

import os
from pathlib import Path

import click

from fleet.errors import FleetError
from fleet.options import (
    PATH,
    choose_policy,
    config_option,
    format_option,
    jobs_option,
    offline_option,
    output_option,
    print_report,
    table_width,
    trust_known_templates,
)
from fleet.output import visible


@click.command("map")
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
    from fleet.service.fleet_toml import members

    if offline:
        os.environ["FLEET_OFFLINE"] = "1"
    if boundaries:
        if around or calls or shown not in ("table", "json"):
            raise FleetError("--boundaries has the forms table and json, and takes neither --around nor --calls")
        _ask(paths, config, shown, output, traces, jobs)
        return
    if traces:
        raise FleetError("--traces is read for questions about boundaries: add --boundaries")
    trust_known_templates(config)
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
    print_report(output, text, f"{output}: {show.summary(map_, found)}")
    raise SystemExit(any(one.finding.level is Level.ERROR for one in found))


def _ask(
    paths: tuple[Path, ...], config: Path, shown: str, output: Path | None, traces: Path | None, jobs: int | None
) -> None:
    """Print the questions about the boundaries of services."""
    from fleet.boundaries import boundaries as asking
    from fleet.boundaries import show
    from fleet.boundaries.traces import read
    from fleet.service.fleet_toml import members

    traffic = read(traces) if traces else None
    found = asking.sources_of(paths) if paths else asking.sources_of_members(members(config))
    report = asking.ask(*found, traffic, jobs)
    text = show.text(report, width=table_width(output)) if shown == "table" else visible(show.as_json(report))
    print_report(output, text, f"{output}: {show.summary(report)}")
