"""The standing of one service of the fleet: what `fleet status` shows and caches."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from fleet.check.checks import DRIFT, check_conventions, find_all
from fleet.check.drift import SOON
from fleet.check.findings import Finding, Level
from fleet.check.lag import check_lag, lag_of
from fleet.errors import FleetError, describe_bug, describe_os_error, refuse_full_disk
from fleet.git.git import without_credentials
from fleet.processes.resource_limits import limit_resources
from fleet.service.fleet_toml import Member
from fleet.service.mirror import Commit
from fleet.service.service import Service
from fleet.service.waivers import today
from fleet.template.template import Template


@dataclass(frozen=True)
class Standing:
    """The state of one service. If the service cannot be read, `unreadable` is the reason, and the other fields are empty."""

    name: str
    address: str
    branch: str = ""
    commit: str = ""
    version: str = ""
    newest: str = ""
    releases_behind: int = 0
    days_behind: int = 0
    # The number of waivers that are live, expiring (counted as live too), and void (expired or malformed).
    waivers: dict[str, int] | None = None
    # Findings about drift, waivers and lag.
    platform: tuple[Finding, ...] = ()
    conventions: tuple[Finding, ...] = ()
    # Errors of the map that this service has to fix.
    neighbours: tuple[Finding, ...] = ()
    unreadable: str = ""
    # The answers `owner` and `domain`, and the tier in the catalogue.
    owner: str = ""
    domain: str = ""
    tier: str = ""
    # The highest level of maturity that the service has reached.
    maturity: str | None = None
    # The level above, and the conventions that the service has to keep for it.
    next_maturity: str | None = None
    lacks: tuple[str, ...] = ()
    # The conventions that the service does not keep, and that the policy does not ask of the service.
    off: tuple[str, ...] = ()
    # The day on which the newest release was published, as 2026-11-30.
    newest_released: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.platform + self.conventions + self.neighbours

    @property
    def level(self) -> Level | None:
        """The level of the worst finding; None without errors and warnings."""
        levels = {finding.level for finding in self.findings}
        if self.unreadable or Level.ERROR in levels:
            return Level.ERROR
        return Level.WARNING if Level.WARNING in levels else None

    @property
    def drift(self) -> dict[str, int]:
        """The number of paths by the kind of drift: edited, deleted, mode, extra."""
        kinds = (finding.id.removeprefix("drift-") for finding in self.platform if finding.id.startswith("drift-"))
        return dict(Counter(kinds))

    @property
    def failed(self) -> list[str]:
        """The conventions that the service does not keep, without waived conventions."""
        return list(dict.fromkeys(one.id for one in self.conventions if one.level is Level.ERROR))

    @property
    def warned(self) -> list[str]:
        """The conventions that the policy only warns of."""
        return list(dict.fromkeys(one.id for one in self.conventions if one.level is Level.WARNING and one.why))

    @property
    def announced(self) -> dict[str, str]:
        """The conventions that the policy announces, each with the day from which it counts; without a day it is empty."""
        return {one.id: one.since or "" for one in self.conventions if one.level is Level.NOTICE}

    @property
    def waived(self) -> list[str]:
        """The conventions that are waived for the service."""
        return list(dict.fromkeys(one.id for one in self.conventions if one.level is Level.WAIVED))

    def to_json(self) -> dict[str, Any]:
        # `asdict` copies every value, which takes ten times as long.
        lists = {key: [vars(one) for one in getattr(self, key)] for key in ("platform", "conventions", "neighbours")}
        return vars(self) | lists

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "Standing":
        """Read the output of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
        findings: dict[str, Any] = {
            key: tuple(Finding(**one | {"level": Level(one["level"])}) for one in written[key])
            for key in ("platform", "conventions", "neighbours")
        }
        lists: dict[str, Any] = {key: tuple(written[key]) for key in ("lacks", "off")}
        return cls(**{**written, **findings, **lists})


def with_traits(member: Member, standing: Standing) -> Standing:
    """Return the standing with the traits that fleet.toml states, so that no service leaves a group by its own answers."""
    return replace(standing, **{name: value for name, value in asdict(member.traits).items() if value})


def unreadable(member: Member, reason: object, commit: str = "") -> Standing:
    return Standing(
        member.name, member.shown_address, member.branch, commit, unreadable=without_credentials(str(reason))
    )


def open_service(commit: Commit) -> Service:
    """Open a service at a commit, without a comparison with an older state: the commit was merged. Raises FleetError."""
    service = Service(commit.repository, commit.id, commit.id)
    service.template = _template(service.answers.source)
    return service


@cache
def _template(source: str) -> Template:
    """Return the template of many services, which reads its tags once, and searches a missing version once."""
    return Template(source)


def judge(member: Member, commit: Commit, service: Service | None = None) -> Standing:
    """Judge one service. A failure becomes part of the result, because the other services still have to be judged."""
    try:
        with limit_resources("judging the service"):
            service = service or open_service(commit)
            behind = lag_of(service)
            return Standing(
                member.name,
                member.shown_address,
                member.branch,
                commit.id,
                service.release.version,
                behind.newest,
                len(behind.missing),
                behind.days,
                _count_waivers(service),
                tuple(find_all((*DRIFT, check_lag), service)),
                tuple(check_conventions(service)),
                owner=service.traits.owner,
                domain=service.traits.domain,
                tier=service.traits.tier,
                newest_released=str(behind.published),
            )
    except OSError as error:
        return unreadable(member, describe_os_error(error), commit.id)
    except FleetError as error:
        refuse_full_disk(error)
        return unreadable(member, error, commit.id)
    except Exception as error:  # a bug that one service meets must not hide the results of the other services
        return unreadable(member, describe_bug(error), commit.id)


def rename(standing: Standing, member: Member) -> Standing:
    """Return a cached standing with the name and address that fleet.toml has now."""
    return replace(standing, name=member.name, address=member.shown_address)


def _count_waivers(service: Service) -> dict[str, int]:
    void = {waiver: waiver.void_because(service.tree.get(waiver.path), today()) for waiver in service.waivers.waivers}
    live = [waiver for waiver, reason in void.items() if not reason]
    return {
        "live": len(live),
        "expiring": sum(waiver.expires <= today() + SOON for waiver in live),
        "void": len(void) - len(live) + len(service.waivers.problems),
    }
