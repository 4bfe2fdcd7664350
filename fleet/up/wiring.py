"""The settings with which each service finds the others. They are derived from the code, which is parsed and not run."""

import ast
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fleet.errors import FleetError
from fleet.up.product import Checkout
from fleet.up.regular_file import read_regular_file
from fleet.up.stubs import Stub
from fleet.update.generated import team_environment

# The name of a setting with the address of a neighbour, by the same rule as in fleet/map/clients.py.
NEIGHBOUR = re.compile(r"(.+?)(_service|_api|_base)*_url")
Peer = Checkout | Stub
"""A service that another service may call."""
PeerT = TypeVar("PeerT", bound=Peer)

WIRED = ("DATABASE_URL", "BROKER_URL", "OIDC_ISSUER", "OIDC_AUDIENCE")


@dataclass(frozen=True)
class Shared:
    """The addresses that the services share."""

    ports: Mapping[str, int]
    databases: Mapping[str, str]
    brokers: Mapping[str, str] = field(default_factory=dict)
    """The URL for each kind of broker."""
    issuer: str = ""
    client_secrets: Mapping[str, str] = field(default_factory=dict)
    telemetry: Mapping[str, str] = field(default_factory=dict)


def missing_brokers(services: Sequence[Checkout], known: Collection[str]) -> set[str]:
    """Return the kinds of brokers that the services need, and that neither `known`, fleet.toml nor a wheel has."""
    return {one.broker for one in services if "BROKER_URL" not in one.settings} - {"", "nats", *known}


def refuse_unknown(services: Sequence[Checkout], known: Sequence[Peer], brokers: Collection[str]) -> None:
    """Name all settings and brokers that have to be given before the services can start. Raises FleetError."""
    lacking = []
    for one in services:
        names = unknown_settings(one, known)
        lacking += [f"{one.name} needs {name}: write it into `settings` of its entry in fleet.toml" for name in names]
        for kind in missing_brokers([one], brokers):
            scheme = {"rabbitmq": "amqp"}.get(kind, kind)
            lacking.append(
                f"{one.name} needs {kind}, which has no wheel: name a running one by --broker-url {scheme}://…, or start Docker "
                f"or Podman, which run the {kind} of its compose.yaml"
            )
    if lacking:
        raise FleetError("nothing was started, because some settings cannot be derived\n  " + "\n  ".join(lacking))


def unknown_settings(service: Checkout, known: Sequence[Peer]) -> list[str]:
    """Return the required settings of the service's own that neither fleet.toml, the environment nor a neighbour gives."""
    given = _given(service, known)
    return [name for name, is_required in own_settings(service).items() if is_required and name not in given]


def environment(service: Checkout, known: Sequence[Peer], shared: Shared) -> dict[str, str]:
    """Return all variables of the service's processes."""
    port = str(shared.ports[service.name])
    settings = {
        "DATABASE_URL": shared.databases[service.name],
        "DATABASE_POOL_SIZE": "5",  # many services share one database server
        "DRAIN_SECONDS": "0",  # there is no load balancer that has to notice the end
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": port,
        "LOG_FORMAT": "json",
        "LOG_MESSAGES": "true",
        "LOG_REQUESTS": "true",  # the page finds the X-Request-Id of a caller by these lines
        "PROBE_DETAILS": "true",
        "SERVE_DOCS": "true",
        "SHUTDOWN_TIMEOUT_SECONDS": "5",
        "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={service.name}",
        **shared.telemetry,
    }
    if service.broker:
        settings |= {"RUN_WORKER": "true", "BROKER_URL": shared.brokers.get(service.broker, "")}
    if service.has_identity:
        secret = shared.client_secrets[service.name]
        settings |= {"OIDC_ISSUER": shared.issuer, "OIDC_AUDIENCE": service.name}
        settings |= {"OIDC_CLIENT_ID": service.name, "OIDC_CLIENT_SECRET": secret}
    inherited = team_environment()
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled files have the biggest effect on the time of a start
    return inherited | settings | _given(service, known, shared.ports)


def _given(service: Checkout, known: Sequence[Peer], ports: Mapping[str, int] | None = None) -> dict[str, str]:
    own = own_settings(service)
    derived = {}
    for setting, name in neighbour_settings(service).items():
        if neighbour := find(name, known):
            derived[setting] = f"http://127.0.0.1:{ports[neighbour.name]}" if ports else ""
    from_outside = {name: os.environ[name] for name in own if name in os.environ and name not in WIRED}
    return derived | from_outside | dict(service.settings)


def neighbour_settings(service: Checkout) -> dict[str, str]:
    """Return the settings of the service's own that have the name of a neighbour, with that name."""
    found = {setting: NEIGHBOUR.fullmatch(setting.lower()) for setting in own_settings(service)}
    return {setting: match[1].replace("_", "-") for setting, match in found.items() if match}


def find(name: str, known: Sequence[PeerT]) -> PeerT | None:
    """Return the service that a neighbour knows by this name."""
    names = {name, f"{name}-service"}
    return next((one for one in known if names & {one.name, one.alias}), None)


def own_settings(service: Checkout) -> dict[str, bool]:
    """Return the variables of the service's own settings, and whether the service needs them to start.

    A file that is no Python has no settings here: the start of the service then shows why.
    """
    try:
        tree = ast.parse(read_regular_file(service.folder / f"src/{service.package}/settings.py"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    return dict(setting for node in classes for setting in _fields(node))


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, bool]]:
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name, options = statement.target.id, _options(statement)
        if not name.startswith("_") and "ClassVar" not in ast.dump(statement.annotation):
            alias = options.get("validation_alias", options.get("alias"))
            text = alias.value if isinstance(alias, ast.Constant) and isinstance(alias.value, str) else name
            yield text.upper(), not ({"default", "default_factory"} & options.keys())


def _options(statement: ast.AnnAssign) -> dict[str, ast.expr]:
    """Return the options of Field(…), of a value or of an annotation. Any other value is the option `default`."""
    calls = [call for call in (statement.value, *ast.walk(statement.annotation)) if isinstance(call, ast.Call)]
    options = {each.arg: each.value for call in calls if _is_field(call) for each in call.keywords if each.arg}
    value = statement.value
    if isinstance(value, ast.Call) and _is_field(value):
        value = value.args[0] if value.args else None
    is_given = value is not None and not (isinstance(value, ast.Constant) and value.value is ...)
    return options | ({"default": value} if is_given and value else {})


def _is_field(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name | ast.Attribute) and ast.unparse(call.func).split(".")[-1] == "Field"
