"""Whose the service is, and where it stands in the catalogue."""

import re
from collections.abc import Iterator
from typing import Any

import codeowners

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.service.service import Service
from fleet.service.waivers import WAIVERS_FILE
from fleet.template.ownership import Owner, Ownership

CODEOWNERS = "CODEOWNERS"
SHADOW = ".github/CODEOWNERS"
CATALOGUE = "catalog-info.yaml"
OWNER = re.compile(r"@[\w.-]+(/[\w.-]+)*|[^@\s]+@[^@\s]+\.[^@\s]+")
# GitLab's: [Documentation][2] @docs-team
SECTION = re.compile(r"\^?\[([^\]]+)\](?:\[\d+\])?")
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
        for _, pattern, owners, number in _rules(service.text(CODEOWNERS)):
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
        elif answered and not _platform_team(service) and answered not in map(_team, everything):
            # Alerts and the catalogue go by the answer.
            yield Problem(CODEOWNERS, f"{' '.join(everything)} owns everything, and the answers say {answered}")


class Reviewers(Convention):
    """Where the platform's team reviews what is the platform's, neither team waits for the other about what is its own."""

    id = "owner-reviewers"
    remedy = (
        "begin CODEOWNERS with `* @platform-team`, then `/src/ @your-team` and so on for each of the team's paths, then "
        f"`/{WAIVERS_FILE} @platform-team`; `fleet update -d platform_team=` if the platform's team does not review"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        platform, answered = _platform_team(service), _answered(service)
        if not platform or CODEOWNERS not in service.tree:  # owner-code-owners says so
            return
        reviewers = _Reviewers(service.text(CODEOWNERS))
        # Exceptions are the platform's to approve, though the file is the team's; also the first one.
        theirs = sorted({*service.expected.platform.keys() & service.tree.keys(), WAIVERS_FILE})
        # Alone: of several owners one is enough, and the team could do without the platform's.
        if wrong := [path for path in theirs if [platform] not in reviewers.of(path)]:
            yield Problem(CODEOWNERS, f"{_shown(wrong)} is the platform's, and not reviewed by {platform} alone")
        missed = [path for path in service.tree if not any(answered in owners for owners in reviewers.of(path))]
        for pattern, paths in _by_pattern(service.expected.patterns, missed):
            yield Problem(CODEOWNERS, f"{_shown(paths)} is the team's ({pattern}), and not reviewed by {answered}")


def _by_pattern(patterns: list[str], paths: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Those of the paths that are the team's."""
    every = Ownership(patterns)
    ours = [path for path in paths if path != WAIVERS_FILE and every.owner_of(path) is Owner.TEAM]
    for pattern in patterns if ours else ():
        one = Ownership([pattern])
        if of_it := [path for path in ours if one.owner_of(path) is Owner.TEAM]:
            yield pattern, of_it


class _Reviewers:
    """Who is asked about a path, as the forges resolve it: in each section, the last rule that matches."""

    def __init__(self, text: str) -> None:
        sections: dict[str, str] = {}
        for section, pattern, owners, _ in _rules(text):
            sections[section] = f"{sections.get(section, '')}{pattern} {' '.join(owners)}\n"
        try:
            self._sections = [codeowners.CodeOwners(rules) for rules in sections.values()]
        except (ValueError, re.error) as error:
            raise FleetError(f"{CODEOWNERS} has a pattern that is none: {error}") from None

    def of(self, path: str) -> list[list[str]]:
        """The teams that each section names."""
        return [[_team(name) for _, name in section.of(path)] for section in self._sections]


def _shown(paths: list[str]) -> str:
    return paths[0] + (f", like {len(paths) - 1} more," if paths[1:] else "")


def _rules(text: str) -> Iterator[tuple[str, str, list[str], int]]:
    """Section, pattern, owners and line of each. A section of GitLab's may name the owners of those rules that name none."""
    name, default = "", list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        rule = line.partition("#")[0].strip()
        if section := SECTION.match(rule):
            name, default = section[1].casefold(), rule[section.end() :].split()
        elif rule:
            pattern, *owners = re.split(r"(?<!\\)\s+", rule)
            yield name, pattern, owners or default, number


def _team(owner: str) -> str:
    """Without what the forge or the catalogue puts before it: @acme/billing, group:default/billing."""
    return re.split(r"[/:]", owner)[-1].lstrip("@")


def _answered(service: Service) -> str:
    return _team(str(service.expected.answers.get("owner") or ""))


def _platform_team(service: Service) -> str:
    """Empty if it reviews nothing here."""
    return _team(str(service.expected.answers.get("platform_team") or ""))


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
