"""`fleet peers`."""

from pathlib import Path

import click

from fleet.options import path_argument
from fleet.output import visible


@click.command()
@path_argument
def peers(path: Path) -> None:
    """Let a service out to its neighbours: add the NetworkPolicies that are missing to peers.yaml of each overlay.

    specs/uses, and consumesApis in catalog-info.yaml, name the neighbours.
    """
    from fleet.map.peers import write_peers

    for line in write_peers(path) or ["no policy is missing"]:
        click.echo(visible(line))
