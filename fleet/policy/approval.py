"""The rules for waivers: the people who may approve them, and how long a waiver may last."""

from dataclasses import dataclass
from datetime import date, timedelta

from fleet.errors import FleetError
from fleet.policy.reading import Table

# The highest number that `days` may have: a century.
MOST_DAYS = 36_500


@dataclass(frozen=True)
class Approval:
    """The table `waivers`. Without approvers anybody may approve; without `days` a waiver may last for any time."""

    approvers: tuple[str, ...] = ()
    # CODEOWNERS has to name one of these owners for conventions.yml.
    reviewers: tuple[str, ...] = ()
    days: int | None = None
    # The day from which the table counts. Before that day objections are announced.
    since: date | None = None

    def object_to(self, approver: str, expires: date, today: date) -> str:
        """State why a waiver is void by the policy; empty if it is not."""
        if self.approvers and approver.strip() not in self.approvers:
            return (
                f"has the approver {approver.strip()!r}, and policy.toml lets only {', '.join(self.approvers)} approve"
            )
        if self.days is not None and expires > today + timedelta(days=self.days):
            return f"lasts until {expires}, and policy.toml allows {self.days} days, which end on {today + timedelta(days=self.days)}"
        return ""

    def counts_on(self, day: date) -> bool:
        return self.since is None or self.since <= day


def read_approval(table: Table) -> Approval:
    """Read the table `waivers` of policy.toml. Raises FleetError."""
    table.allow("approvers", "reviewers", "days", "from")
    found = Approval(table.texts("approvers"), table.texts("reviewers"), table.days("days"), table.day("from"))
    if bool(found.approvers) != bool(found.reviewers):
        missing = "reviewers" if found.approvers else "approvers"
        raise FleetError(
            f"{table.where} has no {missing}: approvers are the names that a waiver may have, and reviewers are the owners in "
            "CODEOWNERS without whom nobody changes conventions.yml. Write both"
        )
    if found.days is not None and found.days > MOST_DAYS:
        raise table.wrong("days", f"has to be at most {MOST_DAYS}")
    return found
