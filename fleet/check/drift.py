"""Drift: where platform-owned paths are not, byte by byte, what the recorded template version makes of the answers."""

from collections.abc import Iterator
from datetime import timedelta

from fleet.check.findings import Finding, Level
from fleet.git.objects import Entry
from fleet.service.seeds import traceless
from fleet.service.service import Service
from fleet.service.waivers import WAIVERS_FILE, today
from fleet.template.answers import ANSWERS_FILE
from fleet.template.ownership import PLATFORM_FOLDERS, Owner

HEAL = "`fleet update` restores it; a wish for it belongs in the template, or in a waiver"

# Renewing a waiver takes a decision: say so before it is too late.
SOON = timedelta(days=30)


def drift(service: Service) -> Iterator[Finding]:
    """Platform-owned paths that were edited, deleted or changed in mode, and files beside them that nobody delivered."""
    for path, expected in service.expected.platform.items():
        found = service.tree.get(path)
        if found == expected:
            continue
        if service.is_waived(path):
            waiver = service.waivers.of_path(path)
            assert waiver is not None
            reason = f"{waiver.reason} (until {waiver.expires}, {waiver.approver})"
            yield Finding("waived", path, reason, "", Level.WAIVED)
        elif not service.waivers.of_path(path):  # one that is void is a finding of its own
            yield Finding(*_difference(path, found, expected), HEAL)
    for path in service.tree:
        if path.startswith(PLATFORM_FOLDERS) and _is_extra(service, path):
            reason = "the template has no such file, and the folder is the platform's"
            yield Finding("drift-extra", path, reason, "move it to a folder of the team's", Level.WARNING)
    yield from _answers(service)


def waivers(service: Service) -> Iterator[Finding]:
    """Waivers that do not count (any longer), are of no use, or end soon."""
    for problem in service.waivers.problems:
        yield Finding("waiver-invalid", WAIVERS_FILE, problem, f"correct it in {WAIVERS_FILE}")
    for waiver in service.waivers.waivers:
        where = waiver.path or WAIVERS_FILE
        entry = service.tree.get(waiver.path)
        if void := waiver.void_because(entry, today()):
            kind = "waiver-expired" if waiver.expires < today() else "waiver-void"
            yield Finding(kind, where, f"the waiver of {waiver.subject} {void}", "have it approved anew, or remove it")
        elif waiver.path and not waiver.id and (needless := _needless(service, waiver.path)):
            reason, remedy = needless
            reason = f"the waiver of {waiver.subject} waives nothing: {reason}"
            yield Finding("waiver-unused", where, reason, remedy, Level.WARNING)
        elif waiver.expires <= today() + SOON:
            reason = f"the waiver of {waiver.subject} expires on {waiver.expires}"
            yield Finding(
                "waiver-expiring", where, reason, f"{waiver.owner}: get rid of it, or renew it", Level.WARNING
            )


def _needless(service: Service, path: str) -> tuple[str, str] | None:
    """Why a waiver of its bytes waives nothing, and what to do; None if it does waive something."""
    found, expected = service.tree.get(path), service.expected
    if path in expected.platform:
        return ("the file is the template's", "remove it") if expected.platform[path] == found else None
    if found and path.startswith(PLATFORM_FOLDERS) and expected.owner_of(path) is Owner.PLATFORM:
        return None
    # `fleet update` accepts one where the version that it brings claims the file.
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


def _answers(service: Service) -> Iterator[Finding]:
    if reason := service.misnamed(service.name):
        yield Finding("answers", ANSWERS_FILE, reason, f"put service_name back: git log -p {ANSWERS_FILE}")
        return
    for name, value in service.answers.values.items():
        if name in service.expected.answers and service.expected.answers[name] != value:
            reason = f"the template does not take the recorded answer {name}: it would read {service.expected.answers[name]!r}"
            yield Finding("answers", ANSWERS_FILE, reason, f"answer it anew: fleet update -d {name}=…")
    for name in traceless(service):
        reason = f"{name} is among the aggregates, and the service has neither a module of it nor its migration"
        remedy = (
            f"`fleet update` brings its files if they never came; else leave {name} out: fleet update -d aggregates=…"
        )
        yield Finding("answers", ANSWERS_FILE, reason, remedy, Level.WARNING)
