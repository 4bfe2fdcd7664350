"""Ownership: CODEOWNERS, and the service's entry in the catalogue."""

import re
from collections.abc import Iterator
from typing import Any

import codeowners

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.service.service import CATALOGUE, Service
from fleet.service.waivers import WAIVERS_FILE
from fleet.template.ownership import Owner, Ownership

CODEOWNERS = "CODEOWNERS"
SHADOW = ".github/CODEOWNERS"
OWNER = re.compile(r"@[\w.-]+(/[\w.-]+)*|[^@\s]+@[^@\s]+\.[^@\s]+")
# The heading of a section in GitLab's CODEOWNERS: [Documentation][2] @docs-team
SECTION = re.compile(r"\^?\[([^\]]+)\](?:\[\d+\])?")
LIFECYCLES = ("experimental", "production", "deprecated")
SPECS = {"specs/openapi.json": "openapi", "specs/asyncapi.json": "asyncapi"}


class CodeOwners(Convention):
    """Nobody has to review or answer for a path without an owner."""

    id = "owner-code-owners"
    remedy = (
        "begin CODEOWNERS with `* @your-team`, and give every later rule an owner; "
        "run `fleet update -d owner=@your-team` if the service now belongs to another team"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        if SHADOW in service.tree:
            yield Problem(SHADOW, "GitHub reads this file, and ignores CODEOWNERS in the root")
        everything: list[str] = []
        for _, pattern, owners, number in _rules(service.text(CODEOWNERS)):
            if not owners:
                yield Problem(CODEOWNERS, f"{pattern} has no owner", number)
            for owner in owners:
                if not OWNER.fullmatch(owner):
                    yield Problem(CODEOWNERS, f"{owner} is not a @user, a @group/team or an address", number)
            if pattern in ("*", "/**", "**"):
                everything = owners
        answered = _answered(service)
        if not everything:
            yield Problem(CODEOWNERS, "no rule covers all paths")
        elif answered and not _platform_team(service) and answered not in map(_team, everything):
            # Alerts and the catalogue name the owner in the answer.
            yield Problem(
                CODEOWNERS, f"{' '.join(everything)} owns all paths, and the owner in the answers is {answered}"
            )


class Reviewers(Convention):
    """If each team reviews its own files only, neither team waits for the other."""

    id = "owner-reviewers"
    remedy = (
        "begin CODEOWNERS with `* @platform-team`, then `/src/ @your-team` and so on for each of the team's paths, then "
        f"`/{WAIVERS_FILE} @platform-team`; run `fleet update -d platform_team=` if the platform team does not review"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        platform, answered = _platform_team(service), _answered(service)
        allowed = service.policy.approval.reviewers
        if not (platform or allowed) or CODEOWNERS not in service.tree:  # owner-code-owners reports a missing file
            return
        reviewers = _Reviewers(service.text(CODEOWNERS))
        unfit = _unfit_reviewers(reviewers.required(WAIVERS_FILE), allowed)
        if not unfit and any(path.startswith(".github/") for path in service.expected.platform):
            unfit = _unfit_reviewers(_Reviewers(_without_sections(service.text(CODEOWNERS))).of(WAIVERS_FILE), allowed)
        if unfit:
            yield Problem(CODEOWNERS, unfit)
        if not platform:
            return
        # The platform team approves waivers, though the file is the team's, and even before the file exists.
        of_platform = sorted({*service.expected.platform.keys() & service.tree.keys(), WAIVERS_FILE})
        # Require a sole owner: with several, any one of them may approve.
        if wrong := [path for path in of_platform if [platform] not in reviewers.required(path)]:
            yield Problem(CODEOWNERS, f"{_summarise(wrong)} is the platform's, and {platform} is not its only reviewer")
        missed = [path for path in service.tree if not any(answered in owners for owners in reviewers.of(path))]
        for pattern, paths in _group_team_paths(service.expected.patterns, missed):
            yield Problem(
                CODEOWNERS, f"{_summarise(paths)} is the team's ({pattern}), and {answered} does not review it"
            )


def _unfit_reviewers(sections: list[list[str]], allowed: tuple[str, ...]) -> str:
    """Explain that the policy allows none of the reviewers of waivers; empty if it allows the reviewers of a section."""
    teams = {_team(one) for one in allowed}
    if not allowed or any(owners and teams.issuperset(owners) for owners in sections):
        return ""
    owners = " or ".join(sorted({one for section in sections for one in section})) or "nobody"
    return f"{owners} reviews {WAIVERS_FILE}, and policy.toml lets only {' or '.join(allowed)} review waivers"


def _group_team_paths(patterns: list[str], paths: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Group the team's paths by the pattern that gives them to the team."""
    every = Ownership(patterns)
    of_team = [path for path in paths if path != WAIVERS_FILE and every.owner_of(path) is Owner.TEAM]
    for pattern in patterns if of_team else ():
        one = Ownership([pattern])
        if matching := [path for path in of_team if one.owner_of(path) is Owner.TEAM]:
            yield pattern, matching


class _Reviewers:
    """Find the reviewers of a path as Git hosts do: the owners in the last matching rule of each section.

    GitLab's exclusion, as !/docs/, leaves its section without a reviewer of the path.
    """

    def __init__(self, text: str) -> None:
        sections: dict[str, str] = {}
        excluded: dict[str, str] = {}
        for section, pattern, owners, _ in _rules(text):
            sections[section] = f"{sections.get(section, '')}{pattern} {' '.join(owners)}\n"
            if pattern.startswith("!"):
                excluded[section] = f"{excluded.get(section, '')}{pattern[1:]} @excluded\n"
        try:
            self._sections = {name: codeowners.CodeOwners(rules) for name, rules in sections.items()}
            self._excluded = {name: codeowners.CodeOwners(rules) for name, rules in excluded.items()}
        except (ValueError, re.error) as error:
            raise FleetError(f"{CODEOWNERS} has an invalid pattern: {error}") from None
        headings = (SECTION.match(line.strip()) for line in text.splitlines())
        self._optional = {found[1].casefold() for found in headings if found and found[0].startswith("^")}

    def of(self, path: str) -> list[list[str]]:
        """Return the reviewing teams of a path, by section."""
        return [self._in(name, path) for name in self._sections]

    def required(self, path: str) -> list[list[str]]:
        """Return the teams without whom a change of a path cannot be merged. The owners of GitLab's optional sections do not count."""
        return [self._in(name, path) for name in self._sections if name not in self._optional]

    def _in(self, section: str, path: str) -> list[str]:
        if section in self._excluded and self._excluded[section].of(path):
            return []
        return [_team(name) for _, name in self._sections[section].of(path)]


def _without_sections(text: str) -> str:
    """Return the rules as GitHub reads them: a section's heading is no rule to it, and the last matching rule counts."""
    return "".join(f"{line}\n" for line in text.splitlines() if not SECTION.match(line.strip()))


def _summarise(paths: list[str]) -> str:
    return paths[0] + (f", like {len(paths) - 1} more," if paths[1:] else "")


def _rules(text: str) -> Iterator[tuple[str, str, list[str], int]]:
    """Yield section, pattern, owners and line of each rule. In GitLab a section may name owners for rules without owners."""
    name, default = "", list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        rule = line.partition("#")[0].strip()
        if section := SECTION.match(rule):
            name, default = section[1].casefold(), rule[section.end() :].split()
        elif rule:
            pattern, *owners = re.split(r"(?<!\\)\s+", rule)
            yield name, pattern, owners or default, number


def _team(owner: str) -> str:
    """Return the bare name of a team: billing for @acme/billing and for group:default/billing."""
    return re.split(r"[/:]", owner)[-1].lstrip("@")


def _answered(service: Service) -> str:
    return _team(str(service.expected.answers.get("owner") or ""))


def _platform_team(service: Service) -> str:
    """Return the platform team; empty if it reviews no files of the service."""
    return _team(str(service.expected.answers.get("platform_team") or ""))


def _entities(service: Service) -> list[dict[str, Any]]:
    found = service.yaml(CATALOGUE)
    if not all(isinstance(one, dict) and isinstance(one.get("metadata"), dict) for one in found):
        raise FleetError(f"{CATALOGUE} has a document that is not an entity: give each document a kind and metadata")
    return found


def _spec(entity: dict[str, Any]) -> dict[str, Any]:
    spec = entity.get("spec")
    return spec if isinstance(spec, dict) else {}


def _component(service: Service) -> dict[str, Any] | None:
    named = [one for one in _entities(service) if one.get("kind") == "Component"]
    return next((one for one in named if one["metadata"].get("name") == service.name), None)


class Catalogue(Convention):
    """People on call and authors of callers look a service up in the catalogue."""

    id = "owner-catalogue-entry"
    remedy = "complete the Component of catalog-info.yaml: type, lifecycle, owner, system"

    def check(self, service: Service) -> Iterator[Problem]:
        component = _component(service)
        if component is None:
            yield Problem(CATALOGUE, f"there is no Component {service.name}")
            return
        if component.get("apiVersion") not in ("backstage.io/v1alpha1", "backstage.io/v1beta1"):
            yield Problem(CATALOGUE, f"apiVersion is {component.get('apiVersion')}, not backstage.io/v1alpha1")
        spec = _spec(component)
        for field in ("type", "lifecycle", "owner", "system"):
            if not isinstance(spec.get(field), str) or not spec[field].strip():
                yield Problem(CATALOGUE, f"the Component has no {field}")
        owner, answered = str(spec.get("owner") or ""), _answered(service)
        if owner and answered and _team(owner) != answered:
            yield Problem(CATALOGUE, f"the Component's owner is {owner}, and the owner in the answers is {answered}")
        if spec.get("lifecycle") not in (None, "", *LIFECYCLES):
            yield Problem(CATALOGUE, f"lifecycle is {spec['lifecycle']}, not {', '.join(LIFECYCLES)}")
        if not str(component["metadata"].get("description", "")).strip():
            yield Problem(CATALOGUE, "the Component has no description")


class CataloguedApis(Convention):
    """If the catalogue does not list an API, callers search the code for it, and nobody asks them before a change."""

    id = "owner-catalogued-apis"
    remedy = "write an API entity for every document in specs/, and name the entity in providesApis"

    def check(self, service: Service) -> Iterator[Problem]:
        try:
            component = _component(service)
        except FleetError:  # owner-catalogue-entry reports a malformed catalogue
            return
        if component is None:
            return
        apis = {str(one["metadata"].get("name")): _spec(one) for one in _entities(service) if one.get("kind") == "API"}
        named = _spec(component).get("providesApis")
        provided = [re.split(r"[/:]", str(name))[-1] for name in (named if isinstance(named, list) else ())]
        for name in provided:
            if name not in apis:
                yield Problem(CATALOGUE, f"the Component provides {name}, and there is no API entity {name}")
        for path, kind in SPECS.items():
            if path in service.tree and not any(
                apis[name].get("type") == kind and _text(apis[name].get("definition")).endswith(path)
                for name in provided
                if name in apis
            ):
                yield Problem(CATALOGUE, f"the Component provides no API of type {kind} whose definition is {path}")


def _text(definition: Any) -> str:
    """Return the path of a definition; empty if the definition is inline."""
    return str(definition.get("$text")) if isinstance(definition, dict) else ""
