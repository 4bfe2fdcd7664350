"""The checks of `fleet check`, in the order in which their findings are shown."""

from collections.abc import Iterator
from dataclasses import replace

from fleet.check.drift import drift, waivers
from fleet.check.findings import Check, Finding, Level
from fleet.check.lag import lag
from fleet.conventions import Convention, conventions
from fleet.errors import DiskFull, FleetError, Malformed, OfThisMachine, bug, refuse_full_disk, refused
from fleet.service.service import Service
from fleet.service.waivers import WAIVERS_FILE, Waiver, today

# Findings of one convention in one service: nobody reads more of them.
MOST_PROBLEMS = 1000

# How the findings of `fleet map` begin, which sees to their waivers itself.
OF_THE_MAP = "map-"

# The beginning of a finding whose cause is this machine and not the service: it is not remembered.
ON_THIS_MACHINE = "cannot be told on this machine"


def kept(service: Service) -> Iterator[Finding]:
    """Conventions that the service does not keep, and waivers of conventions that are of no use."""
    live = [one for one in service.waivers.waivers if not one.void_because(service.tree.get(one.path), today())]
    unused = [one for one in live if one.id and not one.id.startswith(OF_THE_MAP)]
    malformed: set[str] = set()
    for convention in conventions():
        for finding in _of(convention, service, malformed):
            waiver = next((one for one in live if one.covers(finding.id, finding.path)), None)
            unused = [one for one in unused if one is not waiver]
            yield _waived(finding, waiver) if waiver else finding
    known = {convention.id for convention in conventions()}
    for waiver in unused:
        reason = f"the waiver of {waiver.subject} waives nothing: "
        if waiver.id in known:
            yield Finding("waiver-unused", WAIVERS_FILE, f"{reason}the convention is kept", "remove it", Level.WARNING)
        else:
            reason = f"{reason}no convention is called so"
            yield Finding("waiver-invalid", WAIVERS_FILE, reason, f"correct it in {WAIVERS_FILE}")


def _waived(finding: Finding, waiver: Waiver) -> Finding:
    reason = f"{finding.reason}: {waiver.reason} (until {waiver.expires}, {waiver.approver})"
    return replace(finding, reason=reason, remedy="", level=Level.WAIVED)


def _of(convention: Convention, service: Service, malformed: set[str]) -> Iterator[Finding]:
    """`malformed` are the files that a convention before has found to be: one of them stops a dozen."""
    try:
        for number, problem in enumerate(convention.check(service), 1):
            if number > MOST_PROBLEMS:
                reason = f"there are more than {MOST_PROBLEMS:,} places like this"
                yield Finding(convention.id, problem.path, reason, convention.remedy, why=convention.reason)
                return
            yield Finding(
                convention.id,
                problem.path,
                problem.what,
                convention.remedy,
                line=problem.line,
                why=convention.reason,
            )
    except Malformed as error:
        if error.path in malformed:
            yield Finding(convention.id, error.path, "waits for this file", "", line=error.line)
            return
        malformed.add(error.path)
        reason, remedy = f"cannot be told: {error}", "mend that first; other conventions wait for it"
        yield Finding(convention.id, error.path, reason, remedy, line=error.line, why=convention.reason)
    except (MemoryError, RecursionError) as error:
        what = "memory than a check may use" if isinstance(error, MemoryError) else "nesting than a check can follow"
        yield Finding(
            convention.id, "", f"cannot be told: a file needs more {what}", "mend that first", why=convention.reason
        )
    except DiskFull:
        raise
    except (OSError, OfThisMachine) as error:
        reason = f"{ON_THIS_MACHINE}: {refused(error) if isinstance(error, OSError) else error}"
        yield Finding(convention.id, "", reason, "mend that, and run it again", why=convention.reason)
    except FleetError as error:
        refuse_full_disk(error)
        yield Finding(convention.id, "", f"cannot be told: {error}", "mend that first", why=convention.reason)
    except Exception as error:  # an organisation's own conventions run here too, and the others have their say
        yield Finding(convention.id, "", bug(error), "tell the platform team", why=convention.reason)


# Byte-exact comparison with the template; fast, and needs nothing but git.
DRIFT: list[Check] = [drift, waivers]

CHECKS: list[Check] = [*DRIFT, lag, kept]
