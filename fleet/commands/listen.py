"""`fleet listen`."""

from pathlib import Path

import click

from fleet.options import config_option
from fleet.output import visible


@click.command()
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
