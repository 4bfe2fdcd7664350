"""The checks of `fleet check`, in the order in which their findings are shown."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from fleet.check.drift import check_drift, check_waivers
from fleet.check.findings import Check, Finding, Level
from fleet.check.lag import check_lag
from fleet.check.name_clashes import check_names
from fleet.conventions import Convention, conventions
from fleet.errors import (
    DiskFull,
    FleetError,
    MachineError,
    Malformed,
    describe_bug,
    describe_os_error,
    refuse_full_disk,
)
from fleet.service.service import Service
from fleet.service.waivers import WAIVERS_FILE, Waiver, today

# The most findings of one kind in one service: nobody reads more, and a hostile service could have a hundred thousand.
MOST_PROBLEMS = 1000
MORE = f"there are more than {MOST_PROBLEMS:,} places like this"

# The prefix of the findings of `fleet map`, which applies their waivers itself.
OF_THE_MAP = "map-"

# Wrong types in a parsed file cause these errors: a number in the place of a table, a list in the place of a name.
SHAPE = (AttributeError, IndexError, KeyError, TypeError)
REPORT = "report the bug to the platform team"

# The beginning of a finding whose cause is this machine and not the service. Such a finding is not cached.
ON_THIS_MACHINE = "cannot be judged on this machine"


def find_all(checks: Iterable[Check], service: Service) -> Iterator[Finding]:
    """Yield the findings of these checks: of each kind up to MOST_PROBLEMS, and a last finding that there are more."""
    numbers: Counter[tuple[str, Level]] = Counter()
    for check in checks:
        for finding in check(service):
            kind = finding.id, finding.level
            numbers[kind] += 1
            if numbers[kind] <= MOST_PROBLEMS:
                yield finding
            elif numbers[kind] == MOST_PROBLEMS + 1:
                yield replace(finding, reason=MORE)


def check_conventions(service: Service) -> Iterator[Finding]:
    """Find conventions that the service does not keep, and waivers of conventions that have no effect."""
    live = [one for one in service.waivers.waivers if not one.void_because(service.tree.get(one.path), today())]
    unused = [one for one in live if one.id and not one.id.startswith(OF_THE_MAP)]
    malformed: set[str] = set()
    for convention in conventions():
        for finding in _check_one(convention, service, malformed):
            waiver = next((one for one in live if one.covers(finding.id, finding.path)), None)
            unused = [one for one in unused if one is not waiver]
            yield _waive(finding, waiver) if waiver else finding
    known = {convention.id for convention in conventions()}
    yield from (_without_effect(waiver, is_known=waiver.id in known) for waiver in unused)


def _without_effect(waiver: Waiver, *, is_known: bool) -> Finding:
    reason = f"the waiver of {waiver.subject} has no effect: "
    if is_known:
        return Finding("waiver-unused", WAIVERS_FILE, f"{reason}the convention is kept", "remove it", Level.WARNING)
    reason = f"{reason}there is no convention {waiver.id}"
    return Finding("waiver-invalid", WAIVERS_FILE, reason, f"correct the id in {WAIVERS_FILE}")


def _waive(finding: Finding, waiver: Waiver) -> Finding:
    reason = f"{finding.reason}: {waiver.reason} (until {waiver.expires}, {waiver.approver})"
    return replace(finding, reason=reason, remedy="", level=Level.WAIVED)


def _check_one(convention: Convention, service: Service, malformed: set[str]) -> Iterator[Finding]:
    """Check one convention. `malformed` are files that an earlier convention has reported, to report each of them once."""
    service.parsed.clear()
    try:
        yield from _findings(convention, service)
    except Malformed as error:
        if error.path in malformed:
            yield Finding(convention.id, error.path, "waits for this file", "", line=error.line)
            return
        malformed.add(error.path)
        reason, remedy = f"cannot be judged: {error}", "fix the file first; other conventions wait for it"
        yield Finding(convention.id, error.path, reason, remedy, line=error.line, why=convention.reason)
    except DiskFull:
        raise
    except SHAPE as error:
        if path := _suspect(service):
            reason = f"cannot be judged: the file has a structure that the check does not know: {type(error).__name__} {error}"
            remedy = "correct the file; report a bug to the platform team if the file is right as it is"
            yield Finding(convention.id, path, reason, remedy, why=convention.reason)
        else:
            yield Finding(convention.id, "", describe_bug(error), REPORT, why=convention.reason)
    # Conventions of an organisation run here too, and their bugs must not hide the findings of other conventions.
    except Exception as error:
        reason, remedy = _obstacle(error)
        yield Finding(convention.id, "", reason, remedy, why=convention.reason)


def _suspect(service: Service) -> str:
    """Return the last parsed file that differs from the template's render, which is probably the cause of an error.

    The result is empty if no parsed file differs.
    """
    with suppress(FleetError):
        return next((path for path in reversed(service.parsed) if not service.equals_render(path)), "")
    return ""


def _findings(convention: Convention, service: Service) -> Iterator[Finding]:
    for number, problem in enumerate(convention.check(service), 1):
        if number > MOST_PROBLEMS:
            yield Finding(convention.id, problem.path, MORE, convention.remedy, why=convention.reason)
            return
        yield Finding(
            convention.id, problem.path, problem.what, convention.remedy, line=problem.line, why=convention.reason
        )


def _obstacle(error: Exception) -> tuple[str, str]:
    """State why a convention cannot be judged, and the remedy. Raises DiskFull."""
    match error:
        case MemoryError():
            return "cannot be judged: a file needs more memory than a check may use", "make the file smaller"
        case RecursionError():
            return "cannot be judged: a file needs more nesting than a check can follow", "nest the file less deeply"
        case OSError():
            return f"{ON_THIS_MACHINE}: {describe_os_error(error)}", "fix that, and run fleet again"
        case MachineError():
            return f"{ON_THIS_MACHINE}: {error}", "fix that, and run fleet again"
        case FleetError():
            refuse_full_disk(error)
            return f"cannot be judged: {error}", "fix that first"
    return describe_bug(error), REPORT


# Byte-exact comparison with the template: fast, and only git is needed.
DRIFT: list[Check] = [check_names, check_drift, check_waivers]

CHECKS: list[Check] = [*DRIFT, check_lag, check_conventions]
