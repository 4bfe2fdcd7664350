"""Drift: platform-owned paths that differ, byte by byte, from what the recorded template version renders from the answers."""

from collections.abc import Iterator
from datetime import timedelta

from fleet.check.findings import Finding, Level
from fleet.git.objects import Entry
from fleet.service.seeds import find_absent_aggregates
from fleet.service.service import Service
from fleet.service.waivers import WAIVERS_FILE, Waiver, today
from fleet.template.answers import ANSWERS_FILE
from fleet.template.ownership import PLATFORM_FOLDERS, Owner

HEAL = "`fleet update` restores the file; propose the change to the template, or have it waived"

# Renewing a waiver takes a decision, so the end of a waiver is announced this long before.
SOON = timedelta(days=30)


def check_drift(service: Service) -> Iterator[Finding]:
    """Find platform-owned paths that were edited, deleted or changed in mode, and additional files in platform folders."""
    for path, expected in service.expected.platform.items():
        found = service.tree.get(path)
        if found == expected:
            continue
        if service.is_waived(path):
            waiver = service.waivers.of_path(path)
            assert waiver is not None
            reason = f"{waiver.reason} (until {waiver.expires}, {waiver.approver})"
            yield Finding("waived", path, reason, "", Level.WAIVED)
        elif not service.waivers.of_path(path):  # `check_waivers` reports a void waiver
            yield Finding(*_difference(path, found, expected), HEAL)
    for path in service.tree:
        if path.startswith(PLATFORM_FOLDERS) and _is_extra(service, path):
            reason = "the template has no such file, and the folder is the platform's"
            yield Finding("drift-extra", path, reason, "move the file to a folder of the team", Level.WARNING)
    yield from _check_answers(service)


def check_waivers(service: Service) -> Iterator[Finding]:
    """Find waivers that are invalid or void, have no effect, or end soon."""
    for problem in service.waivers.problems:
        yield Finding("waiver-invalid", WAIVERS_FILE, problem, f"correct the entry in {WAIVERS_FILE}")
    for waiver in service.waivers.waivers:
        yield from _check_waiver(service, waiver)


def _check_waiver(service: Service, waiver: Waiver) -> Iterator[Finding]:
    path = waiver.path or WAIVERS_FILE
    if void := waiver.void_because(service.tree.get(waiver.path), today()):
        kind = "waiver-expired" if waiver.expires < today() else "waiver-void"
        yield Finding(kind, path, f"the waiver of {waiver.subject} {void}", "have it approved anew, or remove it")
    elif waiver.objection_since:
        reason = f"the waiver of {waiver.subject} {waiver.objection}"
        since = waiver.objection_since.isoformat()
        yield Finding("waiver-void", path, reason, "have it approved anew, or remove it", Level.NOTICE, since=since)
    elif waiver.path and not waiver.id and (needless := _why_needless(service, waiver.path)):
        reason, remedy = needless
        reason = f"the waiver of {waiver.subject} has no effect: {reason}"
        yield Finding("waiver-unused", path, reason, remedy, Level.WARNING)
    elif waiver.expires <= today() + SOON:
        reason = f"the waiver of {waiver.subject} expires on {waiver.expires}"
        remedy = f"{waiver.owner}: make the waiver unnecessary, or have it renewed"
        yield Finding("waiver-expiring", path, reason, remedy, Level.WARNING)


def _why_needless(service: Service, path: str) -> tuple[str, str] | None:
    """Why a waiver of a file's bytes has no effect, and the remedy; None if it has an effect."""
    found, expected = service.tree.get(path), service.expected
    if path in expected.platform:
        return ("the file is the template's", "remove it") if expected.platform[path] == found else None
    if found and path.startswith(PLATFORM_FOLDERS) and expected.owner_of(path) is Owner.PLATFORM:
        return None
    # The waiver takes effect when `fleet update` brings a version of the template that has the file.
    return "the file is not the platform's", "remove it, unless a version of the template to come claims the file"


def _is_extra(service: Service, path: str) -> bool:
    expected = service.expected
    return path not in expected.paths and expected.owner_of(path) is Owner.PLATFORM and not service.is_waived(path)


def _difference(path: str, found: Entry | None, expected: Entry) -> tuple[str, str, str]:
    if found is None:
        return "drift-deleted", path, "deleted, though the platform owns it"
    if found.blob != expected.blob:
        return "drift-edited", path, "edited, though the platform owns it"
    return "drift-mode", path, f"has mode {found.mode} instead of {expected.mode}"


def _check_answers(service: Service) -> Iterator[Finding]:
    if reason := service.misnamed(service.name):
        yield Finding("answers", ANSWERS_FILE, reason, f"put service_name back: git log -p {ANSWERS_FILE}")
        return
    for name, value in service.answers.values.items():
        if name in service.expected.answers and service.expected.answers[name] != value:
            reason = (
                f"the template does not accept the recorded answer {name}, and reads {service.expected.answers[name]!r}"
            )
            yield Finding("answers", ANSWERS_FILE, reason, f"answer it anew: fleet update -d {name}=…")
    for name in find_absent_aggregates(service):
        reason = f"{name} is among the aggregates, and the service has neither a module nor a migration of {name}"
        remedy = (
            f"`fleet update` brings the files if the service never had them; otherwise remove {name} from the answers: "
            "fleet update -d aggregates=…"
        )
        yield Finding("answers", ANSWERS_FILE, reason, remedy, Level.WARNING)
