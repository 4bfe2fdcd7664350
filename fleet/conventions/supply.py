"""The supply chain: dependencies come from the lock file and the index, and there are no secrets."""

import ast
import glob
import json
import os
import posixpath
import re
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache as once
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from fleet.cache import cache, file_lock, preparing
from fleet.conventions import Convention, Problem
from fleet.errors import FleetError, MachineError, Malformed
from fleet.judges import tools
from fleet.judges.batch import compute_together
from fleet.service import source
from fleet.service.service import Service

LOCK = "uv.lock"
PROJECT = "pyproject.toml"
CHASSIS = "chassis/pyproject.toml"
# The files and dependencies of packages are nearly all of a lock file, and no convention reads them. The pattern matches only
# what uv writes.
UNREAD = re.compile(
    r"""
    ^(?:(?<=^wheels\ =\ \[\n)|(?<=^dependencies\ =\ \[\n))
    (?:\ {4}\{(?:\ [a-z-]+\ =\ (?:"[^"\\\n]*+"|[0-9]++|\[(?:"[^"\\\n]*+"(?:,\ )?)++\]),?)++\ \},\n)++
    (?=\]$)
    | (?<=^sdist\ =\ \{)(?:\ [a-z-]+\ =\ (?:"[^"\\\n]*+"|[0-9]++),?)++(?=\ \}$)
    """,
    re.MULTILINE | re.VERBOSE,
)
# The exit statuses of a scan by kingfisher that succeeded, with findings or without.
FOUND = (0, 200, 205)
# Names of settings about a secret, which are not secrets themselves.
HARMLESS = re.compile(
    r"(?i).*_(algorithm|audience|count|days|file|header|hours|id|issuer|length|limit|minutes|name|path|scheme|scope|seconds"
    r"|size|ttl|type|uri|url)"
)


class NoSecrets(Convention):
    """Everybody who ever cloned a repository knows the secrets in it, so a committed secret has to be replaced everywhere."""

    id = "supply-no-secrets"
    remedy = "replace the secret where it is used, then remove it from the file; settings come from the environment"

    def check(self, service: Service) -> Iterator[Problem]:
        found = service.compute_once(_kingfisher(), _of_the_team(service), _scan)
        rendered = _rendered_lines(service, {path for path, _, _ in found})
        written = {path: service.text(path).splitlines() for path in rendered}
        for path, line, what in found:
            if path not in rendered or line > len(written[path]) or written[path][line - 1] not in rendered[path]:
                yield Problem(path, what, line)

    def prepare(self, services: list[Service]) -> None:
        _rules()
        # The program takes longer to start than to scan.
        compute_together(services, _kingfisher(), _of_the_team, _scan_many)


@once
def _kingfisher() -> str:
    return f"kingfisher 4 {version('kingfisher-bin')}"


def _of_the_team(service: Service) -> tuple[str, ...]:
    """The files to scan: all but the lock file, and the files that are equal to the template's byte by byte."""
    rendered = service.expected.paths
    return tuple(
        glob.escape(path) for path, entry in service.tree.items() if path != LOCK and entry != rendered.get(path)
    )


def _rendered_lines(service: Service, paths: set[str]) -> dict[str, set[str]]:
    """The lines that the template renders in these files, such as the password of a laptop in compose.yaml."""
    shared = paths & service.expected.paths.keys()
    if not shared:
        return {}
    contents = service.release.rendered(service.answers, None).contents
    files = {path: contents[path] for path in shared & contents.keys()}
    return {
        path: set((file.read_bytes() if isinstance(file, Path) else file).decode(errors="replace").splitlines())
        for path, file in files.items()
    }


def _scan_many(folder: Path) -> dict[str, list[tuple[str, int, str]]]:
    found: dict[str, list[tuple[str, int, str]]] = {service.name: [] for service in folder.iterdir()}
    for path, line, what in _scan(folder):
        service, _, inside = path.partition("/")
        found[service].append((inside, line, what))
    return found


def _scan(folder: Path) -> list[tuple[str, int, str]]:
    done = _run_kingfisher(folder, _rules())
    try:
        if done.returncode not in FOUND:
            raise ValueError
        found = json.loads(done.stdout)["findings"]
    except (ValueError, KeyError):
        raise FleetError(f"kingfisher could not be run: {done.stderr.strip()[-500:]}") from None
    places = [(one["finding"]["path"].removeprefix("./"), one["finding"]["line"], one["rule"]) for one in found]
    return sorted({(path, line, f"the text looks like a secret: {rule['name']}") for path, line, rule in places})


def _rules() -> Path:
    """Compile Kingfisher's rules into the cache, and return the folder. One process compiles, which takes seconds.

    KF_RULE_CACHE_DIR, which is Kingfisher's own variable, names another folder.
    """
    named = os.environ.get("KF_RULE_CACHE_DIR")
    rules = Path(named or cache() / f"kingfisher-{version('kingfisher-bin')}").absolute()
    with file_lock(rules):
        if not rules.exists():
            # Compiled elsewhere, so that an interrupted compilation does not pass for the rules.
            with preparing(rules) as folder:
                nothing, compiled = folder / "nothing", folder / "rules"
                nothing.mkdir()
                done = _run_kingfisher(nothing, compiled)
                if done.returncode not in FOUND:
                    raise MachineError(f"kingfisher cannot compile its rules: {done.stderr.strip()[-500:]}")
                if compiled.exists():
                    compiled.rename(rules)
    return rules


def _run_kingfisher(folder: Path, rules: Path) -> subprocess.CompletedProcess[str]:
    # No secret is sent anywhere to see whether it works. A secret that several services share is reported for each. Only a
    # waiver approves a finding, and not a comment in the file.
    options = ("--no-validate", "--no-dedup", "--no-ignore", "--no-update-check", "--quiet", "--format", "json")
    command = [tools.program("kingfisher"), "scan", ".", *options]
    return tools.run(command, cwd=folder, KF_RULE_CACHE_DIR=str(rules))


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


class SettingsWithoutSecrets(Convention):
    """If a secret has a default, production may run with the default."""

    id = "supply-settings-secrets"
    remedy = "give the setting the type SecretStr and no default"
    names = re.compile(
        r"(.*_)?(password|passwd|passphrase|secret|token|credentials?"
        r"|(api|access|encryption|hmac|master|private|secret|signing)_?key)(_.*)?"
    )
    texts = re.compile(r"\b(str|bytes|Secret\w*)\b")

    def check(self, service: Service) -> Iterator[Problem]:
        for path, field, name in _settings(service):
            annotation = ast.unparse(field.annotation)
            secret = "Secret" in annotation
            named = self.names.fullmatch(name) and not HARMLESS.fullmatch(name) and self.texts.search(annotation)
            inside = [node for node in ast.walk(field.annotation) if _is_field(node)]  # Annotated[str, Field(…)]
            defaults = {_default(value) for value in (field.value, *inside)}
            if (secret or named) and defaults - {None, "None", "...", "Ellipsis"}:
                yield Problem(path, f"{name} has a default", field.lineno)
            elif named and not secret:
                yield Problem(path, f"{name} is not a SecretStr, so its value may appear in logs", field.lineno)


def _settings(service: Service) -> Iterator[tuple[str, ast.AnnAssign, str]]:
    """The fields of all classes of settings. Every class in settings.py counts, whatever its name."""
    for module in source.modules(service, "src/*.py"):
        whole = posixpath.basename(module.path) == "settings.py"
        for node in module.of(ast.ClassDef):
            if whole or any(name.endswith("Settings") for name in (node.name, *map(module.named, node.bases))):
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                        yield module.path, field, field.target.id


def _is_field(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Field"


def _default(value: ast.expr | None) -> str | None:
    if value is not None and _is_field(value):
        given = [keyword.value for keyword in value.keywords if keyword.arg in ("default", "default_factory")]
        value = next(iter(given or value.args), None)
    return None if value is None else ast.unparse(value)


def packages(service: Service) -> list[dict[str, Any]]:
    """The packages of the lock file, without their files and dependencies. Raises FleetError."""
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


# Most services require the same as others.
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
    # The chassis is published: read the requirements of the same release.
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
