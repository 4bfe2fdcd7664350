"""Packages: their versions come from the lock file, and the packages from the index."""

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError, Malformed
from fleet.service.service import Service

LOCK = "uv.lock"
PROJECT = "pyproject.toml"
CHASSIS = "chassis/pyproject.toml"
# Most lines of a lock file are about the files and dependencies of packages, which no convention reads. The pattern matches
# these lines as uv writes them.
UNREAD = re.compile(
    r"""
    ^(?:(?<=^wheels\ =\ \[\n)|(?<=^dependencies\ =\ \[\n))
    (?:\ {4}\{(?:\ [a-z-]+\ =\ (?:"[^"\\\n]*+"|[0-9]++|\[(?:"[^"\\\n]*+"(?:,\ )?)++\]),?)++\ \},\n)++
    (?=\]$)
    | (?<=^sdist\ =\ \{)(?:\ [a-z-]+\ =\ (?:"[^"\\\n]*+"|[0-9]++),?)++(?=\ \}$)
    """,
    re.MULTILINE | re.VERBOSE,
)


class Locked(Convention):
    """Without a lock file, each machine installs other versions on each day."""

    id = "supply-locked"
    remedy = "`make setup`, and commit uv.lock"

    def check(self, service: Service) -> Iterator[Problem]:
        if LOCK not in service.tree:
            yield Problem(LOCK, "there is no lock file")
            return
        locked = {package["name"]: package for package in packages(service)}
        for path in (PROJECT, CHASSIS):
            wanted = _wanted(service, path)
            name = canonicalize_name((service.toml(path).get("project") or {}).get("name", ""))
            metadata = (locked.get(name) or {}).get("metadata") or {}
            known = {(one["name"], _specifiers(one.get("specifier", ""))) for one in _entries(metadata)}
            for requirement in sorted(wanted - known, key=str):
                yield Problem(LOCK, f"the file lacks {requirement[0]}{requirement[1]} of {path}")
            for requirement in sorted(known - wanted, key=str):
                yield Problem(LOCK, f"the file has {requirement[0]}{requirement[1]}, which {path} does not require")
            for requirement in sorted(wanted & known, key=str):
                if requirement[0] not in locked:
                    yield Problem(LOCK, f"the file has no version of {requirement[0]}, which {path} requires")


class WithinRanges(Convention):
    """The platform has tested its chassis with versions in these ranges only."""

    id = "supply-chassis-ranges"
    remedy = "leave the versions of the chassis' dependencies to the chassis: use no override and no other source"

    def check(self, service: Service) -> Iterator[Problem]:
        ranges = sorted(_of_the_chassis(service), key=str)
        own = (service.toml(PROJECT).get("tool") or {}).get("uv") or {}
        for one in _requirements(own.get("override-dependencies"), PROJECT):
            if canonicalize_name(one.name) in dict(ranges):
                yield Problem(PROJECT, f"the file overrides {one.name}, whose version the chassis chooses")
        for package in packages(service):
            found = package.get("version")
            for name, allowed in ranges:
                if name == package["name"] and found and not allowed.contains(_version(found), prereleases=True):
                    yield Problem(LOCK, f"{name} is locked at {found}, and the chassis requires {allowed}")


class FromIndex(Convention):
    """A package from elsewhere than the package index has no version and no hash, and nobody scans it."""

    id = "supply-from-index"
    remedy = "publish the package to your package index, and depend on a version"

    def check(self, service: Service) -> Iterator[Problem]:
        members = [".", *((_uv(service).get("workspace") or {}).get("members") or ())]
        for package in packages(service):
            ((kind, where),) = list((package.get("source") or {"none": ""}).items())[:1]
            if kind == "registry" or (
                kind in ("editable", "virtual", "directory")
                and any(fnmatchcase(str(where), str(one)) for one in members)
            ):
                continue
            yield Problem(LOCK, f"{package['name']} comes from {kind} {where}".rstrip())


def packages(service: Service) -> list[dict[str, Any]]:
    """Return the packages of the lock file, without their files and dependencies. Raises FleetError."""
    found = service.toml(LOCK, UNREAD).get("package") or []
    if not isinstance(found, list) or not all(map(_is_package, found)):
        raise Malformed(
            f"{LOCK} has something that uv does not write: a package without a name, or of other types", LOCK
        )
    return found


def _is_package(written: Any) -> bool:
    return (
        isinstance(written, dict)
        and isinstance(written.get("name"), str)
        and all(isinstance(written.get(key) or {}, dict) for key in ("metadata", "source"))
    )


def _uv(service: Service) -> dict[str, Any]:
    return (service.toml(PROJECT).get("tool") or {}).get("uv") or {}


def _requirements(texts: Any, path: str) -> list[Requirement]:
    """Parse a list of requirements in a pyproject.toml. Raises FleetError."""
    try:
        return [_requirement(text) for text in texts or () if isinstance(text, str)]
    except InvalidRequirement as error:
        raise FleetError(f"{path} has an invalid requirement: {error}") from None


# Most services have the same requirements, so each text is parsed once.
_requirement = lru_cache(maxsize=1024)(Requirement)
_specifier_set = lru_cache(maxsize=1024)(SpecifierSet)


def _specifiers(text: Any) -> SpecifierSet:
    try:
        return _specifier_set(str(text))
    except InvalidSpecifier as error:
        raise FleetError(f"{LOCK} has something that uv does not write: {error}") from None


def _version(text: Any) -> Version:
    try:
        return Version(str(text))
    except InvalidVersion as error:
        raise FleetError(f"{LOCK} has something that uv does not write: {error}") from None


def _of_the_chassis(service: Service) -> set[tuple[str, SpecifierSet]]:
    if CHASSIS in service.tree:
        return _wanted(service, CHASSIS)
    # The service installs the chassis as a package, and its requirements are in the template's release that the service has.
    return _required(tomllib.loads((service.release.folder / "template" / CHASSIS).read_text()), CHASSIS)


def _wanted(service: Service, path: str) -> set[tuple[str, SpecifierSet]]:
    return _required(service.toml(path), path)


def _required(content: dict[str, Any], path: str) -> set[tuple[str, SpecifierSet]]:
    """Names and versions that a pyproject.toml requires, extras and groups included."""
    project = content.get("project") or {}
    lists = [project.get("dependencies"), *(project.get("optional-dependencies") or {}).values()]
    lists += (content.get("dependency-groups") or {}).values()
    return {(canonicalize_name(one.name), one.specifier) for texts in lists for one in _requirements(texts, path)}


def _entries(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from metadata.get("requires-dist") or ()
    for group in (metadata.get("requires-dev") or {}).values():
        yield from group
