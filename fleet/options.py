"""The options that commands share, and the functions that read them."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import click

from fleet.errors import FleetError
from fleet.output import WIDE

PATH = click.Path(path_type=Path)
FLEET = Path("fleet.toml")

config_option = click.option(
    "--config", type=PATH, metavar="FILE", default=FLEET, show_default=True, help="The file that lists the services."
)
data_option = click.option(
    "answers", "--data", "-d", multiple=True, metavar="KEY=VALUE", help="Give an answer. Repeatable."
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), show_default="one for each core", help="Processes at a time."
)
offline_option = click.option("--offline", is_flag=True, help="Fetch nothing, and use the commits in the cache.")
output_option = click.option(
    "--output", type=PATH, metavar="FILE", show_default="stdout", help="Write the report there."
)
path_argument = click.argument("path", type=PATH, default=Path(), help="A service's repository. Default: this folder.")
_policy = partial(
    click.option,
    "--policy",
    type=PATH,
    metavar="FILE",
    envvar="FLEET_POLICY",
    show_envvar=True,
    help="The levels, dates and approvers of the platform.",
)
policy_option = _policy(show_default="that of the template's newest release")
fleet_policy_option = _policy(show_default="policy.toml next to fleet.toml, or that of the template's newest release")
day_option = click.option(
    "day",
    "--on",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DAY",
    envvar="FLEET_TODAY",
    show_envvar=True,
    show_default="today",
    help="Judge as on this day: which rules and waivers count then.",
)
to_option = click.option("--to", metavar="VERSION", show_default="newest", help="A version of the template.")
template_option = click.option(
    "--template",
    multiple=True,
    metavar="URL",
    envvar="FLEET_TEMPLATE",
    show_envvar=True,
    show_default="the template in fleet.toml, or the origin of fleet",
    help="The platform's template. A service with another template is refused. Repeatable.",
)


def format_option(*choices: str, help: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the option `--format`. The first choice is the default."""
    return click.option(
        "shown", "--format", type=click.Choice(choices), default=choices[0], show_default=True, help=help
    )


def trust_templates(named: Sequence[str], config: Path | None = None) -> None:
    """Let only the platform's template be fetched and run. Raises FleetError if that template is not known."""
    from fleet.service.fleet_toml import templates
    from fleet.template.trust import is_decided, trust

    if named or (config and templates(config)) or not is_decided():
        trust(platform_templates(named, config))


def trust_known_templates(config: Path) -> None:
    """Let only the platform's template be fetched, if that template is known: a map reads only its policy for waivers."""
    with suppress(FleetError):
        trust_templates((), config if config.is_file() else None)


def platform_templates(named: Sequence[str], config: Path | None) -> Sequence[str]:
    """Return the named templates, or the templates in fleet.toml, or the origin of fleet. Raises FleetError if none is known."""
    from fleet.service.fleet_toml import templates
    from fleet.template.installation import repository

    return named or (templates(config) if config else []) or [repository()]


def choose_policy(named: Path | None, config: Path | None = None) -> None:
    """Let a policy take the place of the template's, in this process and in its children.

    It is the named policy, or that of FLEET_POLICY, or else the file next to fleet.toml, if there is one.
    """
    from fleet.policy.policy import CHOSEN, POLICY

    beside = config.parent / POLICY if config and config.is_file() and CHOSEN not in os.environ else None
    if chosen := named or (beside if beside and beside.is_file() else None):
        os.environ[CHOSEN] = str(chosen.absolute())


def choose_day(day: datetime | None) -> None:
    """Judge as on another day, in this process and in its children."""
    from fleet.service.waivers import TODAY

    if day:
        os.environ[TODAY] = day.date().isoformat()


def table_width(output: Path | None) -> int | None:
    """Return the width of a table in a file; None for a terminal."""
    return None if output is None else WIDE


def print_report(output: Path | None, text: str, *summary: str) -> None:
    """Print the report. If it goes into a file, print the lines of its summary to stderr instead."""
    if output is None:
        click.echo(text, nl=False)
        return
    write_report(output, text)
    for line in summary:
        click.echo(line, err=True)


def write_report(output: Path, text: str) -> None:
    from fleet.cache import write_atomically

    if output.exists() and not output.is_file():  # such as /dev/stdout
        output.write_text(text, encoding="utf-8", errors="backslashreplace")
    else:
        write_atomically(output.resolve(), text)


def parse_answers(answers: tuple[str, ...]) -> dict[str, str]:
    data = {}
    for answer in answers:
        name, separator, value = answer.partition("=")
        if not separator:
            raise FleetError(
                f"-d is {answer!r}, and has to be KEY=VALUE: write the name of an answer, =, and its value"
            )
        data[name] = value
    return data
