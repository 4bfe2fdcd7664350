"""Which database a service uses, as far as its repository says so. What is inside of a Secret nobody can see here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from fleet.answers import Loader
from fleet.service import Service

SETTING = "DATABASE_URL"
OVERLAYS = "deploy/overlays/*.y*ml"
BASE = "deploy/base/*.yaml"


@dataclass(frozen=True)
class Database:
    """One that the service names. Two services with the same `kind` and `key` have the same one.

    kind: `secret` (namespace/name), `store` (a key in a secret store), `url` (host:port/database), `resource` (of the
    catalogue). `path` is where it is written.
    """

    kind: str
    key: str
    path: str


def databases(service: Service) -> list[Database]:
    """Of every overlay; those of the base where an overlay names none. Raises FleetError if a file is not YAML."""
    base = [document for path in service.files(BASE) for document in service.yaml(path)]
    usual = {name for document in base for kind, name in _named(document) if kind == "secret"}
    found: dict[Database, None] = {}
    for folder, documents in _overlays(service).items():
        namespace = next((one["namespace"] for _, one in documents if isinstance(one, dict) and "namespace" in one), "")
        named = [(kind, name, path) for path, one in documents for kind, name in (*_named(one), *_replaced(one, base))]
        if not {"secret", "url"} & {kind for kind, _, _ in named}:
            named += [("secret", name, folder) for name in sorted(usual)]
        found |= dict.fromkeys(Database(kind, _key(kind, name, str(namespace)), path) for kind, name, path in named)
    return list(found)


def _overlays(service: Service) -> dict[str, list[tuple[str, Any]]]:
    """The documents of each, its kustomization's first, with the patches that are written inside of it."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for path in sorted(service.files(OVERLAYS), key=lambda one: ("kustomization" not in one, one)):
        folder = "/".join(PurePosixPath(path).parts[:3])
        found.setdefault(folder, []).extend((path, one) for one in service.yaml(path))
    return found


def _named(node: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of every database in a document: of a variable, a literal, a key of a Secret, or an ExternalSecret."""
    for one in _nodes(node):
        match one:
            case {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": str(name)}}}:
                yield "secret", name
            case {"name": "DATABASE_URL", "value": str(url)} | {"DATABASE_URL": str(url)}:
                yield from _of_url(url)
            case {"secretKey": "DATABASE_URL", "remoteRef": {"key": str(key), **more}}:
                yield "store", f"{key}#{more['property']}" if "property" in more else key
            case str(literal) if literal.startswith("DATABASE_URL="):
                yield from _of_url(literal.partition("=")[2])


def _replaced(node: Any, base: list[Any]) -> Iterator[tuple[str, str]]:
    """The Secrets that JSON patches put where the base has that of the database. They count variables."""
    variables = [one["env"] for one in _nodes(base) if isinstance(one, dict) and isinstance(one.get("env"), list)]
    for one in _nodes(node):
        match one:
            case {"op": "replace", "path": str(path), "value": str(name)}:
                place = re.search(r"/env/(\d+)/valueFrom/secretKeyRef/name$", path)
                at = int(place[1]) if place else -1
                if at >= 0 and any(at < len(env) and env[at].get("name") == SETTING for env in variables):
                    yield "secret", name


def _nodes(node: Any) -> Iterator[Any]:
    """It and all that is in it, a patch that is written as text included."""
    yield node
    if isinstance(node, str) and "\n" in node and ("secretKeyRef" in node or SETTING in node):
        try:
            node = yaml.load(node, Loader=Loader)  # noqa: S506 (a safe loader)
        except yaml.YAMLError:
            return
    for one in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(one)


def _of_url(url: str) -> Iterator[tuple[str, str]]:
    """Without who connects, and with what password."""
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.path.strip("/"):
            yield "url", f"{parts.hostname}:{parts.port or 5432}/{parts.path.strip('/')}"
    except ValueError:
        return


def _key(kind: str, name: str, namespace: str) -> str:
    if kind == "secret":
        return f"{namespace}/{name}"
    # Within a cluster a host without a dot is one of the namespace.
    return name if kind != "url" or "." in name.partition(":")[0] else f"{namespace}/{name}"
