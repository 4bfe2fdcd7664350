"""Whose the service is, and where it stands in the catalogue."""

import re
from collections.abc import Iterator
from typing import Any

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.service import Service

CODEOWNERS = "CODEOWNERS"
CATALOGUE = "catalog-info.yaml"
OWNER = re.compile(r"@[\w.-]+(/[\w.-]+)*|[^@\s]+@[^@\s]+\.[^@\s]+")
LIFECYCLES = ("experimental", "production", "deprecated")
SPECS = {"specs/openapi.json": "openapi", "specs/asyncapi.json": "asyncapi"}


class CodeOwners(Convention):
    """A path without an owner is reviewed by whoever has time, and answered for by nobody."""

    id = "owner-code-owners"
    remedy = "begin CODEOWNERS with `* @your-team`, and give every later rule an owner"

    def check(self, service: Service) -> Iterator[Problem]:
        everything = False
        for number, line in enumerate(service.text(CODEOWNERS).splitlines(), 1):
            # GitLab's sections: [Documentation] @docs-team
            words = re.sub(r"^\^?\[[^\]]*\](\[\d+\])?", "", line.partition("#")[0]).split()
            if not words:
                continue
            pattern, owners = (words[0], words[1:]) if not OWNER.fullmatch(words[0]) else ("*", words)
            if not owners:
                yield Problem(CODEOWNERS, f"{pattern} has no owner", number)
            for owner in owners:
                if not OWNER.fullmatch(owner):
                    yield Problem(CODEOWNERS, f"{owner} is no @user, @group/team or address", number)
            everything = everything or (pattern in ("*", "/**", "**") and bool(owners))
        if not everything:
            yield Problem(CODEOWNERS, "no rule owns everything")


def _entities(service: Service) -> list[dict[str, Any]]:
    found = service.yaml(CATALOGUE)
    if not all(isinstance(one, dict) and isinstance(one.get("metadata"), dict) for one in found):
        raise FleetError(f"{CATALOGUE} has a document that is no entity")
    return found


def _spec(entity: dict[str, Any]) -> dict[str, Any]:
    return entity.get("spec") or {}


def _component(service: Service) -> dict[str, Any] | None:
    named = [one for one in _entities(service) if one.get("kind") == "Component"]
    return next((one for one in named if one["metadata"].get("name") == service.name), None)


class Catalogue(Convention):
    """Whoever is woken by this service, or wants to call it, looks it up in the catalogue."""

    id = "owner-catalogue-entry"
    remedy = "complete the Component of catalog-info.yaml: type, lifecycle, owner, system"

    def check(self, service: Service) -> Iterator[Problem]:
        component = _component(service)
        if component is None:
            yield Problem(CATALOGUE, f"it has no Component {service.name}")
            return
        if component.get("apiVersion") not in ("backstage.io/v1alpha1", "backstage.io/v1beta1"):
            yield Problem(CATALOGUE, f"apiVersion is {component.get('apiVersion')}, not backstage.io/v1alpha1")
        spec = _spec(component)
        for field in ("type", "lifecycle", "owner", "system"):
            if not isinstance(spec.get(field), str) or not spec[field].strip():
                yield Problem(CATALOGUE, f"the Component has no {field}")
        if spec.get("lifecycle") not in (None, "", *LIFECYCLES):
            yield Problem(CATALOGUE, f"lifecycle is {spec['lifecycle']}, not {', '.join(LIFECYCLES)}")
        if not str(component["metadata"].get("description", "")).strip():
            yield Problem(CATALOGUE, "the Component says nothing of what it does: description")


class CataloguedApis(Convention):
    """An API that the catalogue does not know is found by reading code, and broken without asking."""

    id = "owner-catalogued-apis"
    remedy = "give every document in specs/ an API entity, and name it in providesApis"

    def check(self, service: Service) -> Iterator[Problem]:
        try:
            component = _component(service)
        except FleetError:  # owner-catalogue-entry says so
            return
        if component is None:
            return
        apis = {one["metadata"].get("name"): _spec(one) for one in _entities(service) if one.get("kind") == "API"}
        provided = [
            str(name).rpartition("/")[2].rpartition(":")[2] for name in _spec(component).get("providesApis") or ()
        ]
        for name in provided:
            if name not in apis:
                yield Problem(CATALOGUE, f"it provides {name}, which is no API here")
        for path, kind in SPECS.items():
            if path in service.tree and not any(
                apis[name].get("type") == kind and str((apis[name].get("definition") or {}).get("$text")).endswith(path)
                for name in provided
                if name in apis
            ):
                yield Problem(CATALOGUE, f"no API of type {kind} that it provides is {path}")
