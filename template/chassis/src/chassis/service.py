"""Service: the description of a service that its composition root hands to the chassis."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI
from sqlalchemy import MetaData

from chassis.discovery import modules_in
from chassis.messages import NO_MESSAGES, Messages
from chassis.settings import Settings


class Cover(Protocol):
    """A rule in front of the routes: `chassis.identity.Oidc`, `chassis.idempotency.IdempotencyKeys`."""

    def describe(self, app: FastAPI, api: dict[str, Any]) -> None:
        """Add to the API document what the rule means for each route."""
        ...

    def protect(self, app: FastAPI, settings: Settings, telemetry: Any) -> Any:
        """Put the routes behind the rule. Return the part of the process that does so. Raises SettingsError."""
        ...


@dataclass(frozen=True)
class Service:
    """The parts of one service. Its composition root makes exactly one instance.

    `name` is the DNS label under which logs, traces and Kubernetes know the service; `domain` groups services that
    belong together. `package` is the import package: `migrations/versions/` inside it holds the migrations. `tables`
    names the Postgres schema that belongs to this service alone. The other fields appear in the API documents: `owner`
    is the team to contact, `license` an SPDX expression, `broker` is nats, kafka or rabbitmq, and `api_version` is the
    version of the document, not of the build. Without `auth`, everybody who reaches the service may call it. Without
    `idempotency`, a POST that is sent twice has its effect twice.
    `commands` are commands of the service's own: `python -m <package> <name>` calls the function with the Database of the
    process.
    """

    name: str
    domain: str
    description: str
    package: ModuleType
    tables: MetaData
    routers: Sequence[APIRouter]
    messages: Messages = NO_MESSAGES
    settings: type[Settings] = Settings
    api_version: str = "1.0.0"
    owner: str = ""
    license: str = "LicenseRef-Proprietary"
    broker: str = ""
    auth: Cover | None = None
    idempotency: Cover | None = None
    commands: Mapping[str, Callable[[Any], Awaitable[None]]] = field(default_factory=dict)

    @property
    def covers(self) -> list[Cover]:
        """The rules in front of the routes, the innermost first: a caller is known before a key is looked up."""
        return [cover for cover in (self.idempotency, self.auth) if cover is not None]

    @property
    def schema(self) -> str:
        """The Postgres schema of the service."""
        assert self.tables.schema, "the MetaData has no schema: make it with metadata_for() in persistence/schema.py"
        return self.tables.schema

    @property
    def versions(self) -> Path:
        """The folder of the service's migrations."""
        (package_path,) = self.package.__path__
        return Path(package_path, "migrations", "versions")

    def create_app(self, settings: Settings) -> FastAPI:
        """Call `create_app` of the package's `main`, so that the parts that a team adds there are served and tested."""
        return import_module(f"{self.package.__name__}.main").create_app(settings)


def routers_in(package: ModuleType) -> list[APIRouter]:
    """Find the `router` of every module below the package, by path, so that a new file with a router is served.

    A router that another router includes is served only as a part of that router.
    """
    named = (getattr(module, "router", None) for module in modules_in(package))
    found = {id(router): router for router in named if isinstance(router, APIRouter)}
    for router in tuple(found.values()):
        for route in router.routes:
            found.pop(id(getattr(route, "original_router", None)), None)
    return list(found.values())


def tables_in(package: ModuleType) -> MetaData:
    """Return the `metadata` of the package's module `schema`, with the tables of all modules below the package."""
    found = {module.__name__: module for module in modules_in(package)}
    return found[f"{package.__name__}.schema"].metadata
