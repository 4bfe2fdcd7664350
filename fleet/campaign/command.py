"""The campaigns of a fleet, as its commands share them: the policy that has them, and their progress."""

from collections.abc import Sequence
from datetime import timedelta

from fleet.campaign.progress import Progress, find_campaign, measure
from fleet.check.levels import known_conventions
from fleet.check.standing import Standing
from fleet.errors import FleetError
from fleet.policy.policy import Policy, chosen_policy, policy_of
from fleet.service.fleet_toml import Member
from fleet.service.waivers import today
from fleet.status.status import status
from fleet.template.template import Template

# A template that was fetched this recently is not fetched again: `fleet status` fetches it before it measures campaigns.
FETCHED = timedelta(minutes=5)


def gather(members: list[Member], templates: Sequence[str], name: str | None, jobs: int | None) -> list[Progress]:
    """Measure the campaign of this name, or all campaigns. Raises FleetError if the policy has no campaign."""
    policy = _policy(templates)
    if not policy.campaigns and not name:
        raise FleetError("policy.toml has no campaign: write a [[campaign]] with name, by and a goal")
    campaigns = [find_campaign(policy, name)] if name else list(policy.campaigns)
    standings = status(members, jobs)
    return [measure(campaign, policy.maturity, standings, today()) for campaign in campaigns]


def measure_all(templates: Sequence[str], standings: list[Standing]) -> list[Progress]:
    """Measure all campaigns of the policy for services that were judged just now. Raises FleetError."""
    policy = _policy(templates, FETCHED)
    return [measure(campaign, policy.maturity, standings, today()) for campaign in policy.campaigns]


def _policy(templates: Sequence[str], unless_newer_than: timedelta = timedelta()) -> Policy:
    """Read the chosen policy, or that of the first template. Raises FleetError."""
    if (chosen := chosen_policy(known_conventions())) is not None:
        return chosen
    template = Template(templates[0])
    template.refresh_if_possible(unless_newer_than=unless_newer_than)
    return policy_of(template.newest(), known_conventions())
