"""Find all faults of a map."""

from collections import defaultdict
from collections.abc import Iterator

from fleet.check.findings import Finding, Level
from fleet.map import blocked, call_findings, message_findings, uses
from fleet.map.databases import Database
from fleet.map.model import Map, MapFinding
from fleet.map.waivers import apply_waiver
from fleet.service.asyncapi import SPEC
from fleet.template.answers import ANSWERS_FILE

INCOMPLETE = "A map is only as good as the documents that it is drawn from."

# Words that mark a resource of the catalogue as a database: in its type or, if it has no type, in its name.
DATABASE_WORDS = ("database", "db", "postgres", "postgresql", "schema")


def findings(map_: Map, limit: int = call_findings.LIMIT) -> list[MapFinding]:
    """Find all faults, the worst first. `limit` is the number of calls in a row that are allowed."""
    everything = [
        *_unread(map_),
        *_repeated(map_),
        *_silent(map_),
        *message_findings.findings(map_),
        *call_findings.findings(map_, limit),
        *uses.findings(map_),
        *blocked.findings(map_),
        *_shared(map_),
    ]
    return sorted((apply_waiver(map_, one) for one in everything), key=lambda one: list(Level).index(one.finding.level))


def _unread(map_: Map) -> Iterator[MapFinding]:
    for name, reason in map_.unread.items():
        yield MapFinding(
            (name,), Finding("map-unread", "", f"cannot be read: {reason}", "fix that first", why=INCOMPLETE)
        )


def _repeated(map_: Map) -> Iterator[MapFinding]:
    why = "Messages, Secrets and the catalogue use the name, so one service gets what is meant for the other."
    for name in dict.fromkeys(map_.repeated):
        reason = f"more than one repository has the service_name {name}; the first is on the map"
        remedy = "list the service once, or give one of them another service_name"
        yield MapFinding((name,), Finding("map-repeated", ANSWERS_FILE, reason, remedy, why=why))


def _silent(map_: Map) -> Iterator[MapFinding]:
    for one in map_.services.values():
        if one.is_silent:
            reason = "the code sends or receives messages, and the document is missing"
            finding = Finding(
                "map-silent", SPEC, reason, "`make specs`, and commit specs/", Level.WARNING, why=INCOMPLETE
            )
            yield MapFinding((one.name,), finding)


def _shared(map_: Map) -> Iterator[MapFinding]:
    """Report each group of services with a shared database once, even if they share it in several environments."""
    why = "Neither of two services that read a table can change it alone, and they have to be deployed together."
    types = {name: kind for one in map_.services.values() for name, kind in one.resources.items()}
    users: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for one in map_.services.values():
        for database in one.databases:
            if database.kind != "resource" or _is_database(database.key, types):
                users[database.kind, _key(database, map_)].setdefault(one.name, database.path)
    groups: dict[tuple[str, ...], list[tuple[str, str, str]]] = defaultdict(list)
    for (kind, key), paths in users.items():
        if len(paths) > 1:
            groups[tuple(paths)].append((kind, key, next(iter(paths.values()))))
    for names, databases in groups.items():
        what = ", ".join(f"{_KINDS[kind]} {key}" for kind, key, _ in databases)
        reason = f"{' and '.join(names)} share a database: {what}"
        remedy = "give each service its own database, and let one call the other or listen to its events"
        yield MapFinding(names, Finding("map-database-shared", databases[0][2], reason, remedy, why=why))


_KINDS = {
    "secret": "the Secret",
    "store": "in the secret store",
    "url": "the address",
    "base": "the base",
    "resource": "the resource",
}


def _key(database: Database, map_: Map) -> str:
    """Return the identity of a database.

    A Secret <service>-database, as the template names it, is the same in all namespaces.
    """
    name = database.key.rpartition("/")[2].partition("#")[0]
    is_usual = database.kind == "secret" and name.removesuffix("-database") in map_.services
    return name if is_usual else database.key


def _is_database(name: str, types: dict[str, str]) -> bool:
    text = types.get(name, name).lower()
    return any(word in DATABASE_WORDS for word in text.replace("_", "-").split("-"))
