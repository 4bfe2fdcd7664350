"""The part that `fleet campaign` and `fleet nudge` share: the policy with its campaigns, and their progress."""

from collections.abc import Sequence

from fleet.campaign.progress import Progress, find_campaign, measure
from fleet.check.levels import known_conventions
from fleet.errors import FleetError
from fleet.policy.policy import Policy, chosen_policy, policy_of
from fleet.service.register import Member
from fleet.service.waivers import today
from fleet.status.status import status
from fleet.template.template import Template


def gather(members: list[Member], templates: Sequence[str], name: str | None, jobs: int | None) -> list[Progress]:
    """Measure the campaign of this name, or all campaigns. Raises FleetError if the policy has no campaign."""
    policy = _policy(templates)
    if not policy.campaigns and not name:
        raise FleetError("policy.toml has no campaign: write a [[campaign]] with name, by and a goal")
    campaigns = [find_campaign(policy, name)] if name else list(policy.campaigns)
    standings = status(members, jobs)
    return [measure(campaign, policy.maturity, standings, today()) for campaign in campaigns]


def _policy(templates: Sequence[str]) -> Policy:
    """Read the chosen policy, or that of the first template. Raises FleetError."""
    if (chosen := chosen_policy(known_conventions())) is not None:
        return chosen
    template = Template(templates[0])
    template.refresh_if_possible()
    return policy_of(template.newest(), known_conventions())
