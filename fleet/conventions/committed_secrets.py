"""Secrets: none is in a repository, and no setting has a secret as its default."""

import ast
import glob
import json
import os
import posixpath
import re
import subprocess
from collections.abc import Iterator
from functools import cache as once
from importlib.metadata import version
from pathlib import Path
from typing import TypeGuard

from fleet.cache import cache, file_lock, mark_used, preparing
from fleet.conventions import Convention, Problem
from fleet.conventions.packages import LOCK
from fleet.errors import FleetError, MachineError
from fleet.judges import tools
from fleet.judges.batch import compute_together
from fleet.service import source
from fleet.service.service import Service

# The exit statuses of a scan by kingfisher that succeeded, with findings or without.
FOUND = (0, 200, 205)
# Kingfisher compiles 488 rules, and needs half of the time for these two, whose patterns repeat a character up to 2,048 times.
REPLACED = ("betterleaks.aws-session-token", "betterleaks.kubernetes-secret-yaml")
OUR_RULES = Path(__file__).with_name("secret_rules.yml")
# Names of settings about a secret, which are not secrets themselves.
HARMLESS = re.compile(
    r"(?i).*_(algorithm|audience|count|days|file|header|hours|id|issuer|length|limit|minutes|name|path|scheme|scope|seconds"
    r"|size|ttl|type|uri|url)"
)


class NoSecrets(Convention):
    """Everybody who ever cloned a repository knows the secrets in it, so a committed secret has to be replaced everywhere."""

    id = "supply-no-secrets"
    remedy = (
        "revoke the secret where it was issued, use a new secret, then remove the old secret from the file; settings come from "
        "the environment"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        found = service.compute_once(_kingfisher(), _of_the_team(service), _scan)
        rendered = _rendered_lines(service, {path for path, _, _ in found})
        written = {path: service.text(path).splitlines() for path in rendered}
        for path, line, what in found:
            if path not in rendered or line > len(written[path]) or written[path][line - 1] not in rendered[path]:
                yield Problem(path, what, line)

    def prepare(self, services: list[Service]) -> None:
        _rules()
        # One run scans all services, because Kingfisher takes longer to start than to scan.
        compute_together(services, _kingfisher(), _of_the_team, _scan_many)


@once
def _kingfisher() -> str:
    return f"kingfisher 6 {version('kingfisher-bin')}"


def _of_the_team(service: Service) -> tuple[str, ...]:
    """Return the files to scan: all but the lock file, and the files that are equal to the template's byte by byte.

    Rendered files of the team are scanned even if they are equal, because a scan takes less time than a render.
    """
    rendered = service.expected.paths
    return tuple(
        glob.escape(path) for path, entry in service.tree.items() if path != LOCK and entry != rendered.get(path)
    )


def _rendered_lines(service: Service, paths: set[str]) -> dict[str, set[str]]:
    """Return the lines that the template renders in these files, such as the password of a laptop in compose.yaml."""
    shared = paths & service.expected.paths.keys()
    if not shared:
        return {}
    rendered = service.release.rendered(service.answers, None)
    return {path: set((rendered.read(path) or b"").decode(errors="replace").splitlines()) for path in shared}


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
    rules = Path(named or cache() / _kingfisher().replace(" ", "-")).absolute()
    if not named:
        mark_used(rules)
    with file_lock(rules):
        if not rules.exists():
            # Kingfisher compiles into another folder first, so that nobody reads the rules of an interrupted compilation.
            with preparing(rules) as folder:
                nothing, compiled = folder / "nothing", folder / "rules"
                nothing.mkdir()
                done = _run_kingfisher(nothing, compiled)
                if done.returncode not in FOUND:
                    raise MachineError(f"kingfisher cannot compile its rules: {done.stderr.strip()[-500:]}")
                if compiled.exists():
                    compiled.rename(rules)
    return rules


def _run_kingfisher(folder: Path, compiled: Path) -> subprocess.CompletedProcess[str]:
    # No secret is sent anywhere to see whether it works. A secret that several services share is reported for each. Only a
    # waiver approves a finding, and not a comment in the file.
    options = ("--no-validate", "--no-dedup", "--no-ignore", "--no-update-check", "--quiet", "--format", "json")
    rules = (f"--rules-path={OUR_RULES}", *(f"--exclude-rule={rule}" for rule in REPLACED))
    command = [tools.program("kingfisher"), "scan", ".", *options, *rules]
    return tools.run(command, cwd=folder, KF_RULE_CACHE_DIR=str(compiled))


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
    """Yield the fields of all classes of settings. Every class in settings.py counts, whatever its name."""
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
