"""Render an overlay of deploy/ on the platform's base, by the part of Kustomize that overlays of services use.

Kustomize itself is not used, because no package index has it, and the result of a check must not depend on the machine. A
feature that this module does not know raises FleetError. A test compares the results with Kustomize's.
"""

import copy
import posixpath
import re
from collections.abc import Iterator
from functools import lru_cache, reduce
from typing import Any

import jsonpatch
import yaml

from fleet.errors import FleetError
from fleet.service.service import Service
from fleet.template.answers import load

Manifest = dict[str, Any]

FILE = "kustomization.yaml"
UNDERSTOOD = {"apiVersion", "kind", "resources", "components", "patches", "images", "replicas"}
# These fields change nothing that a convention checks.
IGNORED = {
    "namespace",
    "labels",
    "commonAnnotations",
    "configMapGenerator",
    "generatorOptions",
    "sortOptions",
    "secretGenerator",
}

# The lists that Kubernetes merges by a key of their items. All other lists are replaced.
MERGED_BY = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
}


def overlays(service: Service) -> list[str]:
    """Return the folders below deploy/overlays that have a kustomization, sorted."""
    return [posixpath.dirname(path) for path in service.files(f"deploy/overlays/*/{FILE}")]


@lru_cache(maxsize=8)  # a dozen conventions ask for the same few overlays
def render_overlay(service: Service, folder: str) -> list[Manifest]:
    """Render the manifests of a folder, which callers must not change. Raises FleetError for an unknown feature."""
    return _with_kustomization(service, folder, [])


def _with_kustomization(service: Service, folder: str, found: list[Manifest]) -> list[Manifest]:
    """Apply the kustomization of a folder to manifests, and add its own resources."""
    path = posixpath.join(folder, FILE)
    (kustomization,) = service.yaml(path) or [None]
    if not isinstance(kustomization, dict):
        raise FleetError(f"{path} is missing or is not a mapping")
    if unknown := sorted(map(str, set(kustomization) - UNDERSTOOD - IGNORED)):
        raise FleetError(f"{path} uses {', '.join(unknown)}, which fleet cannot render")
    try:
        for name in kustomization.get("resources") or ():
            found = found + _resource(service, path, posixpath.normpath(posixpath.join(folder, name)))
        for name in kustomization.get("components") or ():
            found = _with_kustomization(service, posixpath.normpath(posixpath.join(folder, name)), found)
        for patch in kustomization.get("patches") or ():
            found = _patch(service, path, folder, patch, found)
        if kustomization.get("replicas") or kustomization.get("images"):
            found = copy.deepcopy(found)  # patches change copies
        for replicas in kustomization.get("replicas") or ():
            target = {"kind": "Deployment|StatefulSet", "name": replicas["name"]}
            for one in _targets(path, target, found):
                one["spec"]["replicas"] = replicas["count"]
        for image in kustomization.get("images") or ():
            for container in (each for one in found for each in containers(one)):
                container["image"] = _change_image(container.get("image", ""), image)
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError, re.error) as error:
        raise FleetError(f"{path} is not a valid kustomization: {error!r}") from None
    return found


def config_map_keys(service: Service, folder: str) -> dict[str, set[str]]:
    """Return the keys of each ConfigMap that a folder and the folders it builds on generate. Raises FleetError."""
    return {name: set(values) for name, values in config_maps(service, folder).items()}


def config_maps(service: Service, folder: str) -> dict[str, dict[str, str]]:
    """Return the values of each ConfigMap that a folder and the folders it builds on generate. Raises FleetError."""
    maps: dict[str, dict[str, str]] = {}
    for path, kustomization in kustomizations(service, folder):
        try:
            _generate(service, posixpath.dirname(path), kustomization, maps)
        except (KeyError, TypeError, AttributeError) as error:
            raise FleetError(f"{path} is not a valid kustomization: {error!r}") from None
    return maps


def _generate(service: Service, folder: str, kustomization: Manifest, maps: dict[str, dict[str, str]]) -> None:
    for generator in kustomization.get("configMapGenerator") or ():
        lines = [*(generator.get("literals") or ())]
        for file in [*(generator.get("envs") or ()), *filter(None, [generator.get("env")])]:
            lines += service.text(posixpath.normpath(posixpath.join(folder, file))).splitlines()
        pairs = [line.partition("=") for line in lines if not line.lstrip().startswith("#")]
        before = maps.get(generator["name"], {}) if generator.get("behavior") == "merge" else {}
        maps[generator["name"]] = before | {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def kustomizations(service: Service, folder: str) -> Iterator[tuple[str, Manifest]]:
    """Yield path and content of the kustomizations that a folder builds on, and then of its own. Raises FleetError."""
    path = posixpath.join(folder, FILE)
    (kustomization,) = (service.yaml(path) if path in service.tree else []) or [{}]
    try:
        for name in [*(kustomization.get("resources") or ()), *(kustomization.get("components") or ())]:
            yield from kustomizations(service, posixpath.normpath(posixpath.join(folder, name)))
    except (TypeError, AttributeError, RecursionError) as error:
        raise FleetError(f"{path} is not a valid kustomization: {error!r}") from None
    yield path, kustomization


def template_labels(service: Service, folder: str) -> dict[str, str]:
    """Return the labels that the kustomizations of a folder add to all pods. Raises FleetError."""
    found: dict[str, str] = {}
    for path, kustomization in kustomizations(service, folder):
        try:
            for one in kustomization.get("labels") or ():
                if one.get("includeTemplates") or one.get("includeSelectors"):
                    found |= one["pairs"]
        except (KeyError, TypeError, AttributeError) as error:
            raise FleetError(f"{path} is not a valid kustomization: {error!r}") from None
    return found


def _resource(service: Service, path: str, name: str) -> list[Manifest]:
    if posixpath.join(name, FILE) in service.tree:
        return render_overlay(service, name)
    if name not in service.tree:
        raise FleetError(f"{path} names {name}, which does not exist")
    return service.yaml(name)


def _patch(service: Service, path: str, folder: str, patch: Any, found: list[Manifest]) -> list[Manifest]:
    text = (
        patch["patch"] if "patch" in patch else service.text(posixpath.normpath(posixpath.join(folder, patch["path"])))
    )
    try:
        content = load(text)
        target = patch.get("target") or {}
        if unknown := sorted(map(str, set(target) - {"group", "version", "kind", "name", "namespace"})):
            raise FleetError(f"{path} chooses targets by {', '.join(unknown)}, which fleet cannot render")
        if isinstance(content, list):
            return [jsonpatch.apply_patch(one, content) if _is_target(one, target) else one for one in found]
    except (yaml.YAMLError, jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise FleetError(f"a patch of {path} cannot be applied: {error}") from None
    if not target:
        target = {"kind": content["kind"], "name": content["metadata"]["name"]}
        _targets(path, target, found)
    if content.get("$patch") == "delete":
        return [one for one in found if not _is_target(one, target)]
    return [merge_patch(one, content) if _is_target(one, target) else one for one in found]


def _targets(path: str, target: Manifest, found: list[Manifest]) -> list[Manifest]:
    """Find the manifests of a target. Raises FleetError if there are none, as Kustomize does for a named target."""
    chosen = [one for one in found if _is_target(one, target)]
    if not chosen:
        raise FleetError(f"{path} changes {target['kind']} {target['name']}, which does not exist")
    return chosen


def _is_target(one: Manifest, target: Manifest) -> bool:
    """Return whether a manifest has the kind and name of a target, which are regular expressions."""
    return bool(
        re.fullmatch(target.get("kind") or ".*", one["kind"])
        and re.fullmatch(target.get("name") or ".*", one["metadata"]["name"])
    )


def merge_patch(one: Any, patch: Any, key: str = "") -> Any:
    """Apply a strategic merge patch, as Kubernetes does for the objects of a base. Raises FleetError."""
    if isinstance(patch, dict):
        if patch.get("$patch") == "replace":
            one, patch = {}, {name: value for name, value in patch.items() if name != "$patch"}
        if directives := sorted(name for name in patch if str(name).startswith("$")):
            raise FleetError(f"a patch uses {', '.join(directives)}, which fleet cannot render")
        rest = dict(one) if isinstance(one, dict) else {}
        for name, value in patch.items():
            if value is None or value == {"$patch": "delete"}:
                rest.pop(name, None)
            else:
                rest[name] = merge_patch(rest.get(name), value, name)
        return rest
    by = MERGED_BY.get(key)
    if by and isinstance(one, list) and isinstance(patch, list):
        return reduce(lambda items, item: _merge_item(items, item, by), patch, one)
    return patch


def _merge_item(items: list[Any], item: Any, by: str) -> list[Any]:
    same = [each.get(by) == item.get(by) for each in items]
    if item.get("$patch") == "delete":
        return [each for each, is_same in zip(items, same, strict=True) if not is_same]
    if "$patch" in item:
        raise FleetError(f"a patch uses $patch: {item['$patch']} in a list, which fleet cannot render")
    if not any(same):
        return [*items, merge_patch(None, item)]
    return [merge_patch(each, item) if is_same else each for each, is_same in zip(items, same, strict=True)]


def _change_image(name: str, change: Manifest) -> str:
    """Change the image `registry/name:tag@digest` as an entry of `images` demands."""
    found = re.fullmatch(r"(?P<name>.+?)(?P<tag>:[^:/@]+)?(?P<digest>@.+)?", name)
    if found is None or found["name"] != change["name"]:
        return name
    tag, digest = found["tag"] or "", found["digest"] or ""
    if "newTag" in change:
        tag, digest = f":{change['newTag']}", ""
    if "digest" in change:
        tag, digest = "", f"@{change['digest']}"
    return f"{change.get('newName', found['name'])}{tag}{digest}"


def pod(manifest: Manifest) -> Manifest:
    """Return the spec of a workload's pods; empty for any other manifest."""
    spec = manifest.get("spec") or {}
    if manifest.get("kind") == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    return (spec.get("template") or {}).get("spec") or {}


def containers(manifest: Manifest) -> Iterator[Manifest]:
    """Yield all containers of a workload's pods."""
    spec = pod(manifest)
    for kind in ("containers", "initContainers"):
        yield from spec.get(kind) or ()
