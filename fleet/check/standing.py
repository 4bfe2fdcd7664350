"""How one service of the fleet stands, as `fleet status` shows and remembers it."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from fleet.check.checks import DRIFT, kept
from fleet.check.drift import SOON
from fleet.check.findings import Finding, Level
from fleet.check.lag import lag, lag_of
from fleet.errors import FleetError, bug, refuse_full_disk, refused
from fleet.git.git import without_credentials
from fleet.processes.limits import limited
from fleet.service.mirror import Commit
from fleet.service.register import Member
from fleet.service.service import Service
from fleet.service.waivers import today


@dataclass(frozen=True)
class Standing:
    """What is known of one service. If it is `unreadable`, that is why, and the rest is empty."""

    name: str
    address: str
    branch: str = ""
    commit: str = ""
    version: str = ""
    newest: str = ""
    releases_behind: int = 0
    days_behind: int = 0
    # How many are live (the expiring ones among them), expiring, void (expired ones and malformed ones among them).
    waivers: dict[str, int] | None = None
    # Of drift, waivers and lag.
    platform: tuple[Finding, ...] = ()
    conventions: tuple[Finding, ...] = ()
    # Errors of the map that this service has to mend.
    neighbours: tuple[Finding, ...] = ()
    unreadable: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.platform + self.conventions + self.neighbours

    @property
    def level(self) -> Level | None:
        """The worst of its findings; None if none asks for anything."""
        levels = {finding.level for finding in self.findings}
        if self.unreadable or Level.ERROR in levels:
            return Level.ERROR
        return Level.WARNING if Level.WARNING in levels else None

    @property
    def drift(self) -> dict[str, int]:
        """How many paths, by kind: edited, deleted, mode, extra."""
        kinds = (finding.id.removeprefix("drift-") for finding in self.platform if finding.id.startswith("drift-"))
        return dict(Counter(kinds))

    @property
    def failed(self) -> list[str]:
        """The conventions that it does not keep, without waived ones."""
        return list(dict.fromkeys(one.id for one in self.conventions if one.level is Level.ERROR))

    @property
    def waived(self) -> list[str]:
        """The conventions that it need not keep for now."""
        return list(dict.fromkeys(one.id for one in self.conventions if one.level is Level.WAIVED))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "Standing":
        """Of what `to_json` made. Raises KeyError, TypeError or ValueError if it did not."""
        findings: dict[str, Any] = {
            key: tuple(Finding(**one | {"level": Level(one["level"])}) for one in written[key])
            for key in ("platform", "conventions", "neighbours")
        }
        return cls(**{**written, **findings})


def unreadable(member: Member, reason: object, commit: str = "") -> Standing:
    return Standing(
        member.name, member.shown_address, member.branch, commit, unreadable=without_credentials(str(reason))
    )


def opened(commit: Commit) -> Service:
    """What is on its branch has been agreed to: it is not compared with an older state. Raises FleetError."""
    return Service(commit.repository, commit.id, commit.id)


def judge(member: Member, commit: Commit, service: Service | None = None) -> Standing:
    """Look at one service. Whatever goes wrong there is in the result: a fleet has others to look at."""
    try:
        with limited("judging the service"):
            service = service or opened(commit)
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
                _waivers(service),
                tuple(finding for check in (*DRIFT, lag) for finding in check(service)),
                tuple(kept(service)),
            )
    except OSError as error:
        return unreadable(member, refused(error), commit.id)
    except FleetError as error:
        refuse_full_disk(error)
        return unreadable(member, error, commit.id)
    except Exception as error:  # a bug that one service meets must not hide the others
        return unreadable(member, bug(error), commit.id)


def renamed(standing: Standing, member: Member) -> Standing:
    """What was remembered, under the name that it has in fleet.toml now."""
    return replace(standing, name=member.name, address=member.shown_address)


def _waivers(service: Service) -> dict[str, int]:
    void = {waiver: waiver.void_because(service.tree.get(waiver.path), today()) for waiver in service.waivers.waivers}
    live = [waiver for waiver, reason in void.items() if not reason]
    return {
        "live": len(live),
        "expiring": sum(waiver.expires <= today() + SOON for waiver in live),
        "void": len(void) - len(live) + len(service.waivers.problems),
    }
