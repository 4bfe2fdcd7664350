"""Find the neighbours that a service calls by `client_for` without a setting for their address."""

import ast
from collections.abc import Iterator, Sequence

from fleet.map.clients import METHOD, names_of_clients
from fleet.service.source import Module
from fleet.up.product import Checkout
from fleet.up.regular_file import read_regular_file
from fleet.up.wiring import Peer, find, neighbour_settings


def find_unaddressed(service: Checkout, known: Sequence[Peer]) -> list[str]:
    """Return a sentence for each neighbour that the service would call at an address of production."""
    addressed = {*neighbour_settings(service).values()}
    if "NEIGHBOUR_URL" in service.settings:
        return []
    return [
        f'{service.name} calls client_for("{name}"), but its settings have no address for it: add the field '
        f"`{name.replace('-', '_')}_url: HttpUrl | None = None` to src/{service.package}/settings.py"
        for name in sorted({*_names(service)} - addressed)
        if find(name, known) is not None
    ]


def _names(service: Checkout) -> Iterator[str]:
    for file in (service.folder / "src").rglob("*.py"):
        try:
            content = read_regular_file(file)
            if METHOD.encode() in content:
                yield from names_of_clients(Module(str(file), ast.parse(content)))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # the start of the service shows what is wrong with the file
