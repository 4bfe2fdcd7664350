"""What is wrong with a map: each finding says why it matters and what to do."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from fleet.check.findings import Finding, Level
from fleet.map import about_calls, about_messages
from fleet.map.databases import Database
from fleet.map.model import Found, Map
from fleet.service.asyncapi import SPEC
from fleet.service.waivers import today
from fleet.template.answers import ANSWERS_FILE

INCOMPLETE = "A map is as good as the documents that it is drawn from."

# Words that mark a resource of the catalogue as a database: in its type or, if it has no type, in its name.
DATABASE_WORDS = ("database", "db", "postgres", "postgresql", "schema")


def findings(map_: Map, limit: int = about_calls.LIMIT) -> list[Found]:
    """All of them, the worst first. `limit`: calls in a row that are allowed."""
    everything = [
        *_unread(map_),
        *_repeated(map_),
        *_silent(map_),
        *about_messages.findings(map_),
        *about_calls.findings(map_, limit),
        *_shared(map_),
    ]
    return sorted((_waived(map_, one) for one in everything), key=lambda one: list(Level).index(one.finding.level))


def _waived(map_: Map, one: Found) -> Found:
    """The finding as waived, if a service that it concerns has a valid waiver for it; else unchanged."""
    for service in (map_.services[name] for name in one.services if name in map_.services):
        for waiver in service.waivers:
            if waiver.id == one.finding.id and waiver.until >= today().isoformat():
                reason = f"{one.finding.reason}: {waiver.told}"
                return replace(one, finding=replace(one.finding, reason=reason, remedy="", level=Level.WAIVED))
    return one


def _unread(map_: Map) -> Iterator[Found]:
    for name, reason in map_.unread.items():
        yield Found((name,), Finding("map-unread", "", f"cannot be read: {reason}", "mend that first", why=INCOMPLETE))


def _repeated(map_: Map) -> Iterator[Found]:
    why = "Whatever is meant for one reaches the other: messages, Secrets and the catalogue go by the name."
    for name in dict.fromkeys(map_.repeated):
        reason = f"more than one repository says that it is the service {name}; the first is on the map"
        remedy = "list it once, or give one of them another service_name"
        yield Found((name,), Finding("map-repeated", ANSWERS_FILE, reason, remedy, why=why))


def _silent(map_: Map) -> Iterator[Found]:
    for one in map_.services.values():
        if one.is_silent:
            reason = "its code sends or takes messages, and no document says which"
            finding = Finding(
                "map-silent", SPEC, reason, "`make specs`, and commit specs/", Level.WARNING, why=INCOMPLETE
            )
            yield Found((one.name,), finding)


def _shared(map_: Map) -> Iterator[Found]:
    """One finding for each group of services, however many of its environments they share."""
    why = "A table that two services read is one that neither can change alone, and their deployments become one."
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
        reason = f"{' and '.join(names)} have one database: {what}"
        remedy = "give each its own, and let one ask the other or listen to it"
        yield Found(names, Finding("map-database-shared", databases[0][2], reason, remedy, why=why))


_KINDS = {
    "secret": "the Secret",
    "store": "in the secret store",
    "url": "the address",
    "base": "the base",
    "resource": "the resource",
}


def _key(database: Database, map_: Map) -> str:
    """The template calls a Secret <service>-database: where it has that name, it is of that service, in any namespace."""
    name = database.key.rpartition("/")[2].partition("#")[0]
    is_usual = database.kind == "secret" and name.removesuffix("-database") in map_.services
    return name if is_usual else database.key


def _is_database(name: str, types: dict[str, str]) -> bool:
    said = types.get(name, name).lower()
    return any(word in DATABASE_WORDS for word in said.replace("_", "-").split("-"))
