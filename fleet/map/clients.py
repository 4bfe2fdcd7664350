"""Find the HTTP clients in a service's code, and the services that they name: `service_client(url)`, `settings.client_for(name)`."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from fleet.service.service import Service
from fleet.service.source import Module

FUNCTION = "service_client"
METHOD = "client_for"
"""The method of chassis.neighbours.NeighbourSettings."""


@dataclass(frozen=True)
class Client:
    """One call that makes a client. `target` is the neighbour's name in the code: its own, or that of a setting or of a host."""

    target: str
    path: str
    line: int


def clients(service: Service) -> Iterator[Client]:
    """Find the clients whose address is a setting that ends in _url, or a URL. Raises FleetError if a file is not Python."""
    for path in _mentioning(service):
        for name, call in Module(path, service.python(path)).calls:
            if name == f"chassis.client.{FUNCTION}":
                yield from (Client(target, path, call.lineno) for target in _targets(call))
            elif name.endswith(f".{METHOD}"):
                yield from (Client(target, path, call.lineno) for target in _names(call))


def names_of_clients(module: Module) -> Iterator[str]:
    """Yield the neighbours that a file names in `client_for(name)`."""
    return (name for called, call in module.calls if called.endswith(f".{METHOD}") for name in _names(call))


def _mentioning(service: Service) -> list[str]:
    """Return the few files with a client, which alone need to be parsed."""
    return sorted(
        path
        for path, content in service.contents("src/*.py")
        if any(each.encode() in content for each in (FUNCTION, METHOD))
    )


def _names(call: ast.Call) -> Iterator[str]:
    for node in (*call.args[:1], *(one.value for one in call.keywords if one.arg == "name")):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _targets(call: ast.Call) -> Iterator[str]:
    address = next((one.value for one in call.keywords if one.arg == "base_url"), None) or next(iter(call.args), None)
    for node in ast.walk(address) if address else ():
        if isinstance(node, ast.Attribute | ast.Name):
            name = (node.attr if isinstance(node, ast.Attribute) else node.id).lower()
            if named := re.fullmatch(r"(.+?)(_service|_api|_base)*_url", name):
                yield named[1].replace("_", "-")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "://" in node.value:
            yield from _host(node.value)


def _host(url: str) -> Iterator[str]:
    """Yield the first part of the host in a URL, which in Kubernetes is the name of the service."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return
    if host:
        yield host.partition(".")[0]
