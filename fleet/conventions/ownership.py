"""Whose the service is, and where it stands in the catalogue."""

import re
from collections.abc import Iterator
from typing import Any

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.service import Service

CODEOWNERS = "CODEOWNERS"
SHADOW = ".github/CODEOWNERS"
CATALOGUE = "catalog-info.yaml"
OWNER = re.compile(r"@[\w.-]+(/[\w.-]+)*|[^@\s]+@[^@\s]+\.[^@\s]+")
# GitLab's: [Documentation][2] @docs-team
SECTION = re.compile(r"\^?\[[^\]]+\](\[\d+\])?")
LIFECYCLES = ("experimental", "production", "deprecated")
SPECS = {"specs/openapi.json": "openapi", "specs/asyncapi.json": "asyncapi"}


class CodeOwners(Convention):
    """A path without an owner is reviewed by whoever has time, and answered for by nobody."""

    id = "owner-code-owners"
    remedy = (
        "begin CODEOWNERS with `* @your-team`, and give every later rule an owner; "
        "`fleet update -d owner=@your-team` if the service has become another team's"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        if SHADOW in service.tree:
            yield Problem(SHADOW, "GitHub reads this one, and the one at the root no longer counts")
        everything: list[str] = []
        for pattern, owners, number in _rules(service.text(CODEOWNERS)):
            if not owners:
                yield Problem(CODEOWNERS, f"{pattern} has no owner", number)
            for owner in owners:
                if not OWNER.fullmatch(owner):
                    yield Problem(CODEOWNERS, f"{owner} is no @user, @group/team or address", number)
            if pattern in ("*", "/**", "**"):
                everything = owners
        answered = _answered(service)
        if not everything:
            yield Problem(CODEOWNERS, "no rule owns everything")
        elif answered and answered not in map(_team, everything):
            # Alerts and the catalogue go by the answer.
            yield Problem(CODEOWNERS, f"{' '.join(everything)} owns everything, and the answers say {answered}")


def _rules(text: str) -> Iterator[tuple[str, list[str], int]]:
    """Pattern, owners and line of each. A section of GitLab's may name the owners of those of its rules that name none."""
    default: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        rule = line.partition("#")[0].strip()
        if section := SECTION.match(rule):
            default = rule[section.end() :].split()
        elif rule:
            pattern, *owners = re.split(r"(?<!\\)\s+", rule)
            yield pattern, owners or default, number


def _team(owner: str) -> str:
    """Without what the forge or the catalogue puts before it: @acme/billing, group:default/billing."""
    return re.split(r"[/:]", owner)[-1].lstrip("@")


def _answered(service: Service) -> str:
    return _team(str(service.expected.answers.get("owner") or ""))


def _entities(service: Service) -> list[dict[str, Any]]:
    found = service.yaml(CATALOGUE)
    if not all(isinstance(one, dict) and isinstance(one.get("metadata"), dict) for one in found):
        raise FleetError(f"{CATALOGUE} has a document that is no entity")
    return found


def _spec(entity: dict[str, Any]) -> dict[str, Any]:
    spec = entity.get("spec")
    return spec if isinstance(spec, dict) else {}


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
        owner, answered = str(spec.get("owner") or ""), _answered(service)
        if owner and answered and _team(owner) != answered:
            yield Problem(CATALOGUE, f"the Component's owner is {owner}, and the answers say {answered}")
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
        apis = {str(one["metadata"].get("name")): _spec(one) for one in _entities(service) if one.get("kind") == "API"}
        named = _spec(component).get("providesApis")
        provided = [re.split(r"[/:]", str(name))[-1] for name in (named if isinstance(named, list) else ())]
        for name in provided:
            if name not in apis:
                yield Problem(CATALOGUE, f"it provides {name}, which is no API here")
        for path, kind in SPECS.items():
            if path in service.tree and not any(
                apis[name].get("type") == kind and _text(apis[name].get("definition")).endswith(path)
                for name in provided
                if name in apis
            ):
                yield Problem(CATALOGUE, f"no API of type {kind} that it provides is {path}")


def _text(definition: Any) -> str:
    """Where a definition is; empty for one that is written out."""
    return str(definition.get("$text")) if isinstance(definition, dict) else ""
