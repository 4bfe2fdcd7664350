"""The progress of a campaign: for each of its services, whether the goal is reached, and what is missing."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from fleet.check.findings import Finding, Level
from fleet.check.levels import known_conventions, traits_of
from fleet.check.standing import Standing
from fleet.errors import FleetError
from fleet.policy.campaigns import Campaign
from fleet.policy.maturity import Maturity
from fleet.policy.policy import Policy
from fleet.policy.reading import suggest
from fleet.template.release import as_version


class State(StrEnum):
    """The state of a service in a campaign."""

    DONE = "done"
    OPEN = "open"
    # Only waived conventions are missing.
    WAIVED = "waived"
    # The policy does not ask the missing conventions of this service.
    OFF = "off"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Part:
    """One service in a campaign. `missing` are conventions, or the version that the service has."""

    standing: Standing
    state: State
    missing: tuple[str, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """The findings that keep the service from the goal."""
        return [one for one in self.standing.conventions if one.id in self.missing and one.level is not Level.WAIVED]


@dataclass(frozen=True)
class Progress:
    """A campaign with its services, in the order of fleet.toml."""

    campaign: Campaign
    parts: tuple[Part, ...]
    day: date

    @property
    def open(self) -> list[Part]:
        return [part for part in self.parts if part.state is State.OPEN]

    def of(self, names: Iterable[str]) -> "Progress":
        """Return the part of the campaign with these services."""
        wanted = set(names)
        return replace(self, parts=tuple(part for part in self.parts if part.standing.name in wanted))

    @property
    def is_late(self) -> bool:
        """Whether the day is over, and services are left that have not reached the goal."""
        return self.day > self.campaign.by and any(part.state in (State.OPEN, State.UNREADABLE) for part in self.parts)


def find_campaign(policy: Policy, name: str) -> Campaign:
    """Return the campaign of this name. Raises FleetError."""
    names = [one.name for one in policy.campaigns]
    if name not in names:
        known = f": write one of {', '.join(names)}" if names else ": write a [[campaign]] into policy.toml"
        raise FleetError(f"there is no campaign {name!r}{suggest(name, names)}{known}")
    return policy.campaigns[names.index(name)]


def measure(campaign: Campaign, levels: tuple[Maturity, ...], standings: list[Standing], day: date) -> Progress:
    """Measure a campaign. A service that cannot be read belongs to each campaign, because its traits are not known."""
    concerned = [one for one in standings if one.unreadable or campaign.group.matches(traits_of(one))]
    return Progress(campaign, tuple(_part(campaign, levels, one) for one in concerned), day)


def _part(campaign: Campaign, levels: tuple[Maturity, ...], standing: Standing) -> Part:
    if standing.unreadable:
        return Part(standing, State.UNREADABLE)
    if campaign.version:
        wanted, found = as_version(campaign.version), as_version(standing.version)
        is_done = bool(wanted and found and found >= wanted)
        return Part(standing, State.DONE) if is_done else Part(standing, State.OPEN, (standing.version,))
    asked, known = _asked(campaign, levels), known_conventions()
    # `known` leaves out the finding waiver-unused, which is no convention.
    found = dict.fromkeys(one.id for one in standing.conventions if one.id in known)
    broken, off = (
        tuple(id_ for id_ in ids if any(level.lacks([id_]) for level in asked)) for ids in (found, standing.off)
    )
    if not broken:
        return Part(standing, State.OFF, off) if off else Part(standing, State.DONE)
    is_waived = all(one.level is Level.WAIVED for one in standing.conventions if one.id in broken)
    return Part(standing, State.WAIVED if is_waived else State.OPEN, broken)


def _asked(campaign: Campaign, levels: tuple[Maturity, ...]) -> list[Maturity]:
    """Return the sets of conventions that the goal consists of."""
    if not campaign.maturity:
        return [Maturity(campaign.name, campaign.conventions)]
    names = [one.name for one in levels]
    return list(levels[: names.index(campaign.maturity) + 1])
