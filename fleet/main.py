"""The command line: the commands in their order, and the sentence of a refusal."""

import gc
import sys
from io import TextIOWrapper
from typing import NoReturn

import click

from fleet.commands.campaigns import campaign, nudge
from fleet.commands.check import check
from fleet.commands.client import client
from fleet.commands.impact import impact
from fleet.commands.listen import listen
from fleet.commands.map import draw
from fleet.commands.new import new
from fleet.commands.peers import peers
from fleet.commands.status import status
from fleet.commands.up import down, logs, restart, start, stop, up
from fleet.commands.update import update, update_all
from fleet.errors import FleetError, describe_os_error
from fleet.output import warn

GARBAGE_AFTER = 5_000
"""How many objects more than before are made until Python looks for garbage."""


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


for command in (
    *(check, status, campaign, nudge, draw, impact, update, update_all),
    *(new, peers, client, listen, up, down, logs, stop, start, restart),
):
    app.add_command(command)


def main() -> None:
    """The console script."""
    # Modules and parsed files are many objects and no garbage. Looking for garbage as often as usual takes a tenth of the time.
    gc.set_threshold(GARBAGE_AFTER)
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
        gc.freeze()  # otherwise Python looks at every object once more before it ends


def _fail(message: str) -> NoReturn:
    warn(message)
    raise SystemExit(1) from None
