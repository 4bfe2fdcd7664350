"""Lag: how long a service has been without a release of the template, compared with the platform's policy."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from fleet.check.findings import Finding, Level
from fleet.errors import FleetError
from fleet.policy.policy import POLICY, policy_of_template
from fleet.service.service import Service
from fleet.service.waivers import today
from fleet.template.answers import ANSWERS_FILE

# A template that was fetched this recently is not fetched again, so that services that are checked one after the other share a
# fetch. The time is short, so that an urgent release is seen at once.
JUST_NOW = timedelta(minutes=1)


@dataclass(frozen=True)
class Lag:
    """How far a service is behind the newest release."""

    # The releases that the service does not have, oldest first.
    missing: list[str]
    # Days since the first missing release.
    days: int
    newest: str
    # The day on which the newest release was published.
    published: date


def lag_of(service: Service) -> Lag:
    """Measure the lag of a service. Raises FleetError."""
    template = service.template
    template.refresh_if_possible(unless_newer_than=JUST_NOW)
    newest = template.newest()
    missing = [tag for tag in template.releases if not template.follows(service.release, template.at(tag))]
    # The time of the clock, on the day of the report: FLEET_TODAY may name another day than today.
    now = datetime.combine(today(), datetime.now(UTC).timetz())
    days = (now - template.at(missing[0]).date).days if missing else 0
    return Lag(missing, days, newest.version, newest.date.astimezone(UTC).date())


def check_lag(service: Service) -> Iterator[Finding]:
    """Report a newer release: a warning, and an error once the days of the policy are over."""
    behind = lag_of(service)
    if not behind.missing:
        return
    allowed = allowed_days(service)
    late = behind.days > allowed
    names = "one release" if len(behind.missing) == 1 else f"{len(behind.missing)} releases"
    age = f"the first of them {behind.days} days old, where {allowed} are allowed"
    reason = f"{service.answers.version} lacks {names} up to {behind.newest}, {age}"
    level = Level.ERROR if late else Level.WARNING
    why = "Fixes and conventions of the platform count for a service once it has them."
    yield Finding("template-lag", ANSWERS_FILE, reason, "`fleet update`", level, why=why)


def allowed_days(service: Service) -> int:
    """Return the days of the policy: of the chosen policy, or else of the template's. Raises FleetError if neither has days."""
    days, newest = service.policy.days, service.template.newest()
    if days is None:
        days = policy_of_template(newest).days
    if days is None:
        raise FleetError(f"{POLICY} of the template's {newest.version} has no number of days in [lag]: write it there")
    return days
