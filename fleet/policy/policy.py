"""policy.toml: what the platform asks of which service, how strictly, and from when."""

import hashlib
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fleet.errors import FleetError
from fleet.policy.approval import Approval, read_approval
from fleet.policy.campaigns import Campaign, read_campaigns
from fleet.policy.levels import TRAITS, Group, Rule, Scoped, read_group, read_rules
from fleet.policy.maturity import Maturity, read_maturity
from fleet.policy.reading import Table
from fleet.policy.traits import Traits
from fleet.template.release import Release

POLICY = "policy.toml"
# The environment variable with the path of a policy that takes the place of the template's.
CHOSEN = "FLEET_POLICY"


@dataclass(frozen=True)
class Policy:
    """A policy. The default is that of a platform without a file: each convention is an error, and anybody may approve."""

    days: int | None = None
    rules: tuple[Scoped, ...] = ()
    maturity: tuple[Maturity, ...] = ()
    approval: Approval = field(default_factory=Approval)
    campaigns: tuple[Campaign, ...] = ()

    def rule(self, convention: str, traits: Traits) -> Rule:
        """Return the most specific rule; of two equally specific rules the later one."""
        found = [one for one in self.rules if one.covers(convention, traits)]
        weights = [one.weight for one in found]
        return found[len(found) - 1 - weights[::-1].index(max(weights))].rule if found else Rule()

    def groups_without(self, services: Iterable[Traits]) -> set[Group]:
        """Return the groups, of rules and of campaigns, to which none of these services belongs."""
        listed = list(services)
        groups = {one.group for one in (*self.rules, *self.campaigns)}
        return {group for group in groups if not any(map(group.matches, listed))} if listed else set()


def parse(text: str, name: str, conventions: frozenset[str] | None = None) -> Policy:
    """Parse a policy. `name` is the file for people. Without `conventions` unknown names are accepted. Raises FleetError."""
    try:
        written = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FleetError(f"{name} is not TOML: {error}") from None
    file = Table(name, written, conventions)
    file.allow("lag", "conventions", "group", "maturity", "waivers", "campaign")
    lag = file.table("lag")
    lag.allow("days")
    rules = list(read_rules(file, Group()))
    for table in file.tables("group"):
        table.allow("conventions", *TRAITS)
        if not (group := read_group(table)).traits:
            raise FleetError(f"{table.where} names no services: write {', '.join(TRAITS)}, or one or two of them")
        rules += read_rules(table, group)
    maturity = read_maturity(file.tables("maturity"))
    return Policy(
        lag.days("days"),
        tuple(rules),
        maturity,
        read_approval(file.table("waivers")),
        read_campaigns(file.tables("campaign"), maturity),
    )


def chosen_policy(conventions: frozenset[str] | None = None) -> Policy | None:
    """Read the policy that FLEET_POLICY names; None if it names none. Raises FleetError."""
    text = _chosen_text()
    return None if text is None else parse(text, os.environ[CHOSEN], conventions)


def digest_of_chosen_policy() -> list[str]:
    """Return the digest of the policy that FLEET_POLICY names, in a list; an empty list if it names none. Raises FleetError."""
    text = _chosen_text()
    return [] if text is None else [hashlib.sha256(text.encode()).hexdigest()]


def _chosen_text() -> str | None:
    if not (path := os.environ.get(CHOSEN)):
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"{path} cannot be read: {error}. Correct --policy or {CHOSEN}") from None


def policy_of(release: Release, conventions: frozenset[str] | None = None) -> Policy:
    """Read the chosen policy, or that of a release of the template. Raises FleetError."""
    chosen = chosen_policy(conventions)
    return policy_of_template(release, conventions) if chosen is None else chosen


def policy_of_template(release: Release, conventions: frozenset[str] | None = None) -> Policy:
    """Read the policy of a release of the template. Raises FleetError."""
    name = f"{POLICY} of the template's {release.version}"
    try:
        return parse((release.read(POLICY) or b"").decode(), name, conventions)
    except UnicodeDecodeError as error:
        raise FleetError(f"{name} is not UTF-8: {error}") from None
