"""Invented campaigns for the invented fleet."""

from datetime import timedelta

from fleet.campaign.progress import Progress, measure
from fleet.check.standing import Standing
from fleet.policy.policy import parse
from fleet.service.waivers import today

POLICY = """
[[campaign]]
name = "newest-release"
version = "v1.4.0"
by = {soon}
why = "It closes a hole in the image."
ask = "@shop/platform"

[[campaign]]
name = "cost-centres"
conventions = ["owner-catalogue-entry"]
by = {over}
why = "Finance divides the bill of the cluster by this annotation."
ask = "@shop/finance"
tier = ["1", "2"]
"""


def campaigns(standings: list[Standing]) -> list[Progress]:
    """Measure two campaigns: the day of one is still to come, and the day of the other has passed."""
    day = today()
    policy = parse(POLICY.format(soon=day + timedelta(12), over=day - timedelta(5)), "policy.toml")
    return [measure(one, policy.maturity, standings, day) for one in policy.campaigns]
