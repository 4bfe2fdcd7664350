"""The service's own settings: every overlay sets them, and the runbook names them."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

from fleet.conventions import Convention, Problem
from fleet.conventions.overlays import LONG_RUNNING
from fleet.errors import FleetError
from fleet.judges.kustomize import FILE, Manifest, config_map_keys, overlays, pod, render_overlay
from fleet.service.service import Service

SETTINGS = "src/*/settings.py"
RUNBOOK = "docs/runbook.md"


class _Setting(NamedTuple):
    name: str
    path: str
    line: int


class Deployed(Convention):
    """A pod without the value of a required setting does not start, and only the deployment would show that."""

    id = "setting-deployed"
    remedy = (
        "set the setting in every overlay, in the ConfigMap or by a patch with the key of a Secret, and add a row to "
        "docs/runbook.md (docs/how-to/add-a-setting.md); or give the setting a default"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        required = [setting for path in service.files(SETTINGS) for setting in _required(path, service.python(path))]
        if not required:
            return
        runbook = service.text(RUNBOOK) if RUNBOOK in service.tree else ""
        for name, path, line in required:
            if f"`{name}`" not in runbook:
                yield Problem(path, f"{name} has no default, and docs/runbook.md does not name it", line)
        for folder in overlays(service):
            try:
                manifests, generators = render_overlay(service, folder), config_map_keys(service, folder)
            except FleetError:
                continue  # deploy-rendered reports the error
            for one in manifests:
                if one.get("kind") in LONG_RUNNING:
                    given = _given(one, generators)
                    for name, path, _ in required:
                        if given is not None and name not in given:
                            what = f"{one['kind']} {one['metadata']['name']} does not get {name}, which has no default in {path}"
                            yield Problem(f"{folder}/{FILE}", what)


def _required(path: str, tree: ast.Module) -> Iterator[_Setting]:
    """Yield the fields without a default of the classes in a module."""
    for owner in tree.body:
        for node in owner.body if isinstance(owner, ast.ClassDef) else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not _has_default(node):
                yield _Setting(node.target.id.upper(), path, node.lineno)


def _has_default(node: ast.AnnAssign) -> bool:
    if node.value is not None:
        return not _is_field(node.value) or _gives_default(node.value)
    return "ClassVar" in ast.unparse(node.annotation) or any(map(_gives_default, ast.walk(node.annotation)))


def _is_field(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Field"


def _gives_default(node: ast.AST) -> bool:
    """Return whether the node is a `Field(…)` with a default."""
    if not isinstance(node, ast.Call) or not _is_field(node):
        return False
    first = node.args[0] if node.args else None
    has_first = first is not None and not (isinstance(first, ast.Constant) and first.value is ...)
    return has_first or any(keyword.arg in ("default", "default_factory") for keyword in node.keywords)


def _given(workload: Manifest, generators: dict[str, set[str]]) -> set[str] | None:
    """Return the variables of the first container; None if some come from a Secret, or from outside of the overlay."""
    container = (pod(workload).get("containers") or [{}])[0]
    given = {entry["name"] for entry in container.get("env") or ()}
    for source in container.get("envFrom") or ():
        name = (source.get("configMapRef") or {}).get("name")
        if name not in generators:
            return None
        given |= {f"{source.get('prefix', '')}{key}" for key in generators[name]}
    return given
