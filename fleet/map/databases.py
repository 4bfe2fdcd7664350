"""Find the databases that a service's repository names. The contents of Secrets are not in the repository."""

import base64
import re
from binascii import Error as NotBase64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from fleet.service.service import Service
from fleet.template.answers import Loader

SETTING = "DATABASE_URL"
FILES = ("deploy/*.yaml", "deploy/*.yml", "deploy/*.env", "deploy/*.properties")
OVERLAY = re.compile(r"deploy/overlays/[^/]+")

# Files without these words cannot name a database, and are not parsed.
RELEVANT = re.compile("database|postgres|secret|kind: *Kustomization|^namespace:", re.IGNORECASE | re.MULTILINE)
# Words that mark the name of a Secret, a variable, a key of a secret store or a base as the name of a database.
WORDS = re.compile(r"(?:^|[^a-z])(?:database|db|postgres|postgresql|pg|dsn)(?:$|[^a-z])", re.IGNORECASE)
# Common keys of a Secret for one database. With any other key, a Secret may be for several databases.
USUAL_KEYS = {"database_url", "uri", "url", "dsn", "host", "port", "dbname", "user", "username", "password"}
URL = re.compile(r"postgres(?:ql)?(?:\+\w+)?://[^\s\"'`]+")
# Placeholders that the deployment replaces: `{{ .password }}` of an ExternalSecret's template, `$(USER)` of a container.
PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\$\(\w+\)|\$\{\w+\}")
LOOPBACK = re.compile(r"localhost|127\..*|::1|0\.0\.0\.0")

Named = tuple[str, str]


@dataclass(frozen=True)
class Database:
    """A database that the service names. Two services with the same `kind` and `key` share a database.

    kind: `secret` (namespace/name), `store` (a key in a secret store), `url` (host/database), `base` (a remote base of
    Kustomize), `resource` (of the catalogue). `path` is the file that names the database.
    """

    kind: str
    key: str
    path: str


def databases(service: Service) -> list[Database]:
    """Find the databases of every overlay, or of the base if an overlay names no database.

    Raises FleetError if a file is not YAML.
    """
    base: list[tuple[str, Any]] = []
    overlays: dict[str, list[tuple[str, Any]]] = {}
    for path, document in _documents(service):
        overlay = OVERLAY.match(path)
        (overlays.setdefault(overlay[0], []) if overlay else base).append((path, document))
    usual = [one for _, document in base for one in _named(document, [])]
    variables = [one["env"] for _, document in base for one in _nodes(document) if isinstance(one.get("env"), list)]
    found: dict[Database, None] = {}
    for folder, documents in overlays.items():
        namespace = next((one["namespace"] for _, one in documents if isinstance(one, dict) and "namespace" in one), "")
        named = [(*one, path) for path, document in documents for one in _named(document, variables)]
        if not {"secret", "url"} & {kind for kind, _, _ in named}:
            named += [(*one, folder) for one in usual]
        secrets = {name.partition("#")[0] for kind, name, _ in named if kind == "secret"}
        named += [(*one, path) for path, document in (*documents, *base) for one in _of_store(document, secrets)]
        found |= dict.fromkeys(Database(kind, _key(kind, name, str(namespace)), path) for kind, name, path in named)
    return list(found)


def _documents(service: Service) -> Iterator[tuple[str, Any]]:
    """Yield path and content of each document, the kustomization of an overlay first."""
    for path in sorted(service.files(*FILES), key=lambda one: ("kustomization" not in one, one)):
        if not RELEVANT.search(service.text(path)):
            continue
        if path.endswith((".yaml", ".yml")):
            yield from ((path, document) for document in service.yaml(path))
        else:
            yield path, [line for line in service.text(path).splitlines() if not line.lstrip().startswith("#")]


def _named(document: Any, variables: list[list[Any]]) -> Iterator[Named]:
    """Yield kind and name of every database in a document. `variables` are the lists of variables in the base."""
    for one in _nodes(document):
        yield from _of_text(one)
        yield from _of_secret(one)
        yield from _of_patch(one, variables)
    if isinstance(document, dict):
        remote = [one for one in map(str, document.get("resources") or []) if "//" in one or one.startswith("git@")]
        yield from (("base", one.partition("?")[0]) for one in remote if WORDS.search(one))


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a document, and in patches that are written as text. A text counts as the mapping `{"": …}`."""
    if isinstance(node, str):
        if "\n" in node and any(word in node for word in ("secret", SETTING, "postgres")):
            try:
                parsed = yaml.load(node, Loader=Loader)  # noqa: S506 (a safe loader)
            except yaml.YAMLError:
                parsed = node
            if not isinstance(parsed, str):
                yield from _nodes(parsed)
                return
        yield {"": node}
    elif isinstance(node, list):
        for one in node:
            yield from _nodes(one)
    elif isinstance(node, dict):
        yield node
        for one in node.values():
            yield from _nodes(one)


def _of_text(node: dict[str, Any]) -> Iterator[Named]:
    """Yield the addresses in a text, or in the base64 of a Secret."""
    if isinstance(text := node.get(""), str):
        for url in URL.findall(PLACEHOLDER.sub("\0", text)):
            yield from _of_url(url)
    if isinstance(encoded := node.get(SETTING), str) and "://" not in encoded:
        try:
            yield from _of_url(base64.b64decode(encoded, validate=True).decode())
        except (NotBase64, UnicodeDecodeError):
            return


def _of_url(url: str) -> Iterator[Named]:
    """Yield host and database of a URL, without user, password and port, because a pooler has another port than its server."""
    try:
        parts = urlsplit(url)
        asked = parse_qs(parts.query)
    except ValueError:
        return
    name = unquote(parts.path.strip("/")) or asked.get("dbname", [""])[0]
    for host in [*parts.netloc.rpartition("@")[2].split(","), *",".join(asked.get("host", [])).split(",")]:
        host = re.sub(r":\d*$", "", unquote(host)).strip("[]").lower()
        if host and name and not host.startswith("/") and not LOOPBACK.fullmatch(host) and "\0" not in host + name:
            yield "url", f"{re.sub(r'[.]svc([.]cluster[.]local)?[.]?$', '', host)}/{name}"


def _of_secret(node: dict[str, Any]) -> Iterator[Named]:
    """Yield the Secrets that variables and volumes come from."""
    match node:
        case {"name": str(variable), "valueFrom": {"secretKeyRef": {"name": str(name), **more}}}:
            key = str(more.get("key", SETTING))
            if any(map(WORDS.search, (variable, key, name))):
                yield "secret", name if key.lower() in USUAL_KEYS else f"{name}#{key}"
        case {"secretRef": {"name": str(name)}} | {"secret": {"secretName": str(name)}} if WORDS.search(name):
            yield "secret", name


def _of_store(document: Any, secrets: set[str]) -> Iterator[Named]:
    """Yield the entries of a secret store for databases. `secrets` are the names of Secrets for databases."""
    for node in _nodes(document):
        if isinstance(key := node.get("objectName"), str) and WORDS.search(key):
            yield "store", key
        spec = node.get("spec") or node.get("externalSecretSpec")
        if isinstance(spec, dict) and ("dataFrom" in spec or "data" in spec):
            entries = list(_entries(spec))
            target = (spec.get("target") or {}).get("name") or (node.get("metadata") or {}).get("name") or ""
            is_whole = target in secrets or WORDS.search(str(target))
            # A Secret may also contain other values: if the names of some entries mark a database, the others do not count.
            chosen = [entry for name, entry in entries if WORDS.search(name)]
            yield from (("store", one) for one in chosen or [entry for _, entry in entries if is_whole])


def _entries(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the names of each entry on both sides, and its key in the store."""
    for one in (*(spec.get("data") or []), *(spec.get("dataFrom") or [])):
        match one:
            case {"remoteRef": {"key": str(key), **more}, **rest} | {"extract": {"key": str(key), **more}, **rest}:
                entry = f"{key}#{more['property']}" if "property" in more else key
                yield f"{rest.get('secretKey', '')} {entry}", entry
            case {"find": {"path": str(path)}}:
                yield path, path


def _of_patch(node: dict[str, Any], variables: list[list[Any]]) -> Iterator[Named]:
    """Yield the Secrets that JSON patches put in the place of the base's Secret. The patches name variables by position."""
    match node:
        case {"op": "replace", "path": str(path), "value": value}:
            place = re.search(r"/env/(\d+)/valueFrom(/secretKeyRef(/name)?)?$", path)
            at = int(place[1]) if place else -1
            if at >= 0 and any(at < len(env) and env[at].get("name") == SETTING for env in variables):
                value = value.get("secretKeyRef", value) if isinstance(value, dict) else value
                name = value.get("name") if isinstance(value, dict) else value
                if isinstance(name, str):
                    yield "secret", name


def _key(kind: str, name: str, namespace: str) -> str:
    if kind == "secret":
        return f"{namespace}/{name}"
    # Within a cluster a host without a dot is in the same namespace.
    host, _, database = name.partition("/")
    return name if kind != "url" or "." in host or ":" in host else f"{host}.{namespace}/{database}"
