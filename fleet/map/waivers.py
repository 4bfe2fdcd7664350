"""Apply the waivers of services to findings of the map, by the policy of each service's template."""

from dataclasses import replace
from datetime import timedelta
from functools import cache

from fleet.check.findings import Level
from fleet.errors import FleetError
from fleet.map.facts import Facts, MapWaiver
from fleet.map.model import Map, MapFinding
from fleet.output import warn
from fleet.policy.approval import Approval
from fleet.policy.policy import chosen_policy, policy_of_template
from fleet.service.waivers import today
from fleet.template.template import Template
from fleet.template.trust import is_decided

# A template that was fetched this recently is not fetched again, because another part of the same run has fetched it.
FETCHED = timedelta(minutes=5)


def apply_waiver(map_: Map, one: MapFinding) -> MapFinding:
    """Mark the finding as waived if a service that it concerns has a valid waiver."""
    for service in (map_.services[name] for name in one.services if name in map_.services):
        for waiver in service.waivers:
            if _covers(waiver, service, one) and (approval := _approval(service)) and waiver.counts(approval, today()):
                reason = f"{one.finding.reason}: {waiver.description}"
                return replace(one, finding=replace(one.finding, reason=reason, remedy="", level=Level.WAIVED))
    return one


def _covers(waiver: MapWaiver, service: Facts, one: MapFinding) -> bool:
    """Return whether the waiver is for this finding. A waiver for one file counts in a service that has to act."""
    is_there = service.name in one.acting and waiver.path == one.finding.path
    return waiver.id == one.finding.id and (not waiver.path or is_there)


def _approval(service: Facts) -> Approval | None:
    """Return the rules for the waivers of a service. If the rules cannot be read, return None: no waiver counts.

    The rules are in the chosen policy, or in the newest release of the service's template. If the command has not decided which
    templates are the platform's, anybody may approve.
    """
    if (chosen := chosen_policy()) is not None:
        return chosen.approval
    return _approval_of_template(service.template) if is_decided() else Approval()


@cache
def _approval_of_template(address: str) -> Approval | None:
    try:
        template = Template(address)
        template.refresh_if_possible(unless_newer_than=FETCHED)
        return policy_of_template(template.newest()).approval
    except FleetError as error:
        warn(
            f"waivers of findings of the map do not count, because the policy of their template cannot be read: {error}"
        )
        return None
