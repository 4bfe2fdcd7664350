"""The campaigns on the page: whom to ask, by when, and the state of each service."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet.campaign.progress import Part, Progress, State
from fleet.campaign.show import remaining
from fleet.output import count
from fleet.page.rows import Row
from fleet.policy.campaigns import Campaign

# The states of a service in a campaign, in the order of the page: the worst state first.
STATES = (State.OPEN, State.UNREADABLE, State.WAIVED, State.OFF, State.DONE)


@dataclass(frozen=True)
class Owner:
    """An owner whose services have not reached the goal."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Shown:
    """A campaign with its services, open services first, and the owners to ask, the owner of most open services first."""

    campaign: Campaign
    services: tuple[tuple[Row, Part], ...]
    owners: tuple[Owner, ...]
    remaining: str
    is_late: bool

    @property
    def done(self) -> int:
        return sum(part.state is State.DONE for _, part in self.services)

    @property
    def asked(self) -> int:
        """The number of services of which the policy asks the goal."""
        return sum(part.state is not State.OFF for _, part in self.services)

    @property
    def others(self) -> list[str]:
        """The numbers of services in other states than done."""
        numbers = Counter(part.state for _, part in self.services)
        return [f"{numbers[state]} {state.value}" for state in STATES if numbers[state] and state is not State.DONE]


def shown(campaigns: Iterable[Progress], ordered: Sequence[Row]) -> list[Shown]:
    """Return the campaigns that concern these services, the campaign that ends first before the others."""
    rows = {row.standing.name: row for row in ordered}
    parts = [one.of(rows) for one in campaigns]
    return [_shown(one, rows) for one in sorted(parts, key=lambda one: one.campaign.by) if one.parts]


def _shown(progress: Progress, rows: dict[str, Row]) -> Shown:
    owned: dict[str, list[Row]] = defaultdict(list)
    for part in progress.open:
        owned[part.standing.owner].append(rows[part.standing.name])
    owners = sorted((Owner(name, tuple(found)) for name, found in owned.items()), key=lambda one: -len(one.rows))
    services = [(rows[part.standing.name], part) for part in progress.parts]
    services.sort(key=lambda one: STATES.index(one[1].state))
    return Shown(progress.campaign, tuple(services), tuple(owners), remaining(progress), progress.is_late)


def headline(one: Shown) -> str:
    """Return the progress in words."""
    return ", ".join([f"{one.done} of {count(one.asked, 'service')} done", *one.others])
