"""The checks of `fleet check`, in the order in which their findings are shown."""

from collections.abc import Iterator
from dataclasses import replace

from fleet.conventions import Convention, conventions
from fleet.drift import drift, waivers
from fleet.errors import FleetError, bug
from fleet.findings import Check, Finding, Level
from fleet.lag import lag
from fleet.service import Service
from fleet.waivers import WAIVERS_FILE, Waiver, today


def kept(service: Service) -> Iterator[Finding]:
    """Conventions that the service does not keep, and waivers of conventions that are of no use."""
    for convention in conventions():
        waiver = service.waivers.of_id(convention.id)
        found = list(_of(convention, service))
        if waiver is None:
            yield from found
        elif not waiver.void_because(None, today()):  # one that is void is a finding of its own
            yield from (_waived(finding, waiver) for finding in found)
            if not found:
                reason = f"the waiver of {waiver.id} waives nothing: the convention is kept"
                yield Finding("waiver-unused", WAIVERS_FILE, reason, "remove it", Level.WARNING)
    known = {convention.id for convention in conventions()}
    for waiver in service.waivers.waivers:
        if waiver.id and waiver.id not in known:
            reason = f"the waiver of {waiver.id} waives nothing: no convention is called so"
            yield Finding("waiver-invalid", WAIVERS_FILE, reason, f"correct it in {WAIVERS_FILE}")


def _waived(finding: Finding, waiver: Waiver) -> Finding:
    reason = f"{finding.reason}: {waiver.reason} (until {waiver.expires}, {waiver.approver})"
    return replace(finding, reason=reason, remedy="", level=Level.WAIVED)


def _of(convention: Convention, service: Service) -> Iterator[Finding]:
    try:
        for problem in convention.check(service):
            yield Finding(
                convention.id,
                problem.path,
                problem.what,
                convention.remedy,
                line=problem.line,
                why=convention.reason,
            )
    except FleetError as error:
        yield Finding(convention.id, "", f"cannot be told: {error}", "mend that first", why=convention.reason)
    except Exception as error:  # an organisation's own conventions run here too, and the others have their say
        yield Finding(convention.id, "", bug(error), "tell the platform team", why=convention.reason)


# Byte-exact comparison with the template; fast, and needs nothing but git.
DRIFT: list[Check] = [drift, waivers]

CHECKS: list[Check] = [*DRIFT, lag, kept]
