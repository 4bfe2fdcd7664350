"""`fleet client`."""

from pathlib import Path

import click

from fleet.errors import FleetError
from fleet.options import config_option
from fleet.output import visible, warn


@click.command()
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
