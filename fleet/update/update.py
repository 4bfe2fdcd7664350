"""`fleet update`: bring one service to a version of the template, without conflicts, and without changing the team's files.

The update does not merge. The template renders every platform-owned file from the answers, so the update replaces the old
render by the new one. Before that, it reverts drift in a commit of its own, where the team can see and take back the change.
On a service without drift the result equals that of `copier update`, byte by byte (tests/fleet compares them).
"""

import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from fleet.check.drift import check_drift, check_waivers
from fleet.check.findings import Level
from fleet.check.name_clashes import refuse_unsafe_names
from fleet.errors import FleetError
from fleet.git import git
from fleet.service.revisions import MIGRATION, append_migrations
from fleet.service.seeds import find_delivered_answers, new_seeds
from fleet.service.service import Service
from fleet.template.answers import ANSWERS_FILE, Answers
from fleet.template.changelog import notes
from fleet.template.manifest import Manifest, entry_of
from fleet.template.migrations import migrations
from fleet.template.ownership import Owner, Ownership
from fleet.template.release import Release, Render
from fleet.template.template import Template
from fleet.update import generated
from fleet.update.answer_notes import answer_notes
from fleet.update.conflicts import refuse_conflicts
from fleet.update.fast_forward import fast_forward, place_of
from fleet.update.files import copy_file, diff, make_room, remove_empty_folders
from fleet.update.report import Report
from fleet.update.worktree import commit, worktree

# This text also explains how to repair a file of the platform: `fleet check` reports a file with conflict markers as edited,
# and names `fleet update` as the remedy, which refuses to run while there are conflict markers.
RESOLVE = (
    "a failed update has left conflicts. Remove the markers, delete the .rej files, and commit. Files of the platform need no "
    "repair: remove them by `git rm`, commit, and `fleet update` writes them anew"
)


@dataclass(frozen=True)
class Options:
    """The options of `fleet update`. `data` are changed answers."""

    data: dict[str, Any]
    to: str | None = None
    keep: bool = False
    finish: bool = True


def update(path: Path, options: Options) -> Report:
    """Bring the service that contains `path` to a template version.

    Raises FleetError, and leaves the repository unchanged, if that is not possible.
    """
    # Imported in a thread, because importing Copier takes as long as all calls of git. A daemon, so that a refusal does not
    # wait for the import.
    importing = Thread(target=import_module, args=("fleet.template.rendering",), daemon=True)
    importing.start()
    service = Service(path)
    _refuse_unready(service)
    start = place_of(service.root)
    if reason := service.misnamed(str(options.data.get("service_name", service.name))):
        raise FleetError(f"{reason}: put service_name back into {ANSWERS_FILE}, or rename the folder first")
    service.template = template = Template(service.answers.source)
    template.refresh_if_possible()
    old = template.recorded_release(service.answers)
    new = _target(template, old, options.to)
    report = Report(service.root.name, old.version, new.version)
    for release in {old, new}:
        _ = release.folder  # the files of the version are written while Copier is imported
    importing.join()
    with worktree(service.root, keep=options.keep) as checkout, tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        before = Render(old, service.answers, Path(folder, "old"))
        service.expected = before.manifest  # render once: files are restored from the same render
        _heal(service, checkout, before, Ownership.of(new.folder), report)
        if had := find_delivered_answers(service):
            before = Render(old, service.answers, Path(folder, "had"), had)
        if old.commit != new.commit:
            _migrate(checkout, old, new, report)
            report.notes = notes(old, new)
        if old.commit != new.commit or options.data or had:
            # The service is opened again, because a migration may have rewritten the answers.
            migrated = Service(checkout)
            after = Render(new, migrated.answers, Path(folder, "new"), options.data)
            _apply(migrated, before, after, report)
        if report.changed:
            refuse_conflicts(checkout, "the update would end with conflicts:")
            if options.finish:
                report.unfinished = generated.finish(checkout)
            fast_forward(service.root, checkout, start)
    return report


def _refuse_unready(service: Service) -> None:
    if service.ref is not None:
        raise FleetError(f"{service.root} has no working copy: clone it first")
    refuse_conflicts(service.root, RESOLVE)
    if changed := git.changed_paths(service.root):
        shown = "\n".join(f"  {path}" for path in changed[:10]) + ("\n  …" if len(changed) > 10 else "")
        raise FleetError(f"there are uncommitted changes: commit or stash them first\n{shown}")
    if not git.succeeds(service.root, "symbolic-ref", "--quiet", "HEAD"):
        raise FleetError("no branch is checked out: `git switch` to the branch to update first")
    for required in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        git.git(service.root, "var", required)
    if doubtful := [finding for finding in check_waivers(service) if finding.level is Level.ERROR]:
        listed = "\n".join(f"  {finding.reason}: {finding.remedy}" for finding in doubtful)
        raise FleetError(f"an update cannot decide whether these waivers count:\n{listed}")
    refuse_unsafe_names(service)


def _target(template: Template, old: Release, to: str | None) -> Release:
    new = template.at(to) if to else template.newest()
    if template.follows(new, old):
        return new
    if to:
        raise FleetError(f"the service is at {old.version} already, and {new.version} is older: choose a newer version")
    return old


def _heal(service: Service, checkout: Path, recorded: Render, next_list: Ownership, report: Report) -> None:
    """Restore the platform's files to the recorded version, in a commit of its own.

    A file that the new version hands over to the team stays as it is.
    """
    kinds = ("drift-edited", "drift-deleted", "drift-mode")
    found = [finding.path for finding in check_drift(service) if finding.id in kinds]
    healed = [path for path in found if next_list.owner_of(path) is Owner.PLATFORM]
    for path in healed:
        target = make_room(checkout, path)
        report.healed_diff += diff(target, recorded / path, path)
        copy_file(recorded / path, target)
    lines = "\n".join(f"- {path}" for path in healed)
    message = f"Restore platform-owned files to template {recorded.release.version}\n\n{lines}"
    report.healed = healed
    report.changed |= commit(checkout, message, healed)


def _migrate(checkout: Path, old: Release, new: Release, report: Report) -> None:
    for migration in migrations(old, new):
        output = migration.run(checkout)
        report.changed |= commit(checkout, f"Migrate to template {migration.version}: {migration.summary}\n\n{output}")
        report.migrated.append(f"{migration.version}: {migration.summary}" + (f"\n{output}" if output else ""))


def _apply(service: Service, before: Render, after: Render, report: Report) -> None:
    """Write the render of the new version into the checkout, in one commit."""
    checkout = service.root
    _refuse_unaccepted_answers(after)
    _refuse_occupied_paths(service, before.manifest, after.manifest)
    touched = [*_write_platform(service, before, after, report), ANSWERS_FILE]
    copy_file(after / ANSWERS_FILE, checkout / ANSWERS_FILE)
    report.seeds = new_seeds(service, before.manifest, after)
    touched += _write_seeds(service, after, report)
    report.answers = answer_notes(before.manifest, after)
    _compare_seeds(service, before, after, report)
    is_newer = report.old != report.new
    changed = f"Change the answers: {', '.join(after.data)}" if after.data else "Add the files of the recorded answers"
    subject = f"Update to template {report.new}" if is_newer else changed
    report.changed |= commit(checkout, subject, touched)
    _verify(checkout, after.manifest)


def _refuse_unaccepted_answers(after: Render) -> None:
    """Refuse a recorded answer that the version does not accept, for which Copier would silently use the default."""
    for name, recorded in after.answers.values.items():
        read = after.manifest.answers.get(name, recorded)
        if name not in after.data and read != recorded:
            raise FleetError(
                f"{after.release.version} does not accept the recorded answer {name}: {recorded!r}, and would read {read!r}. "
                f"Answer it anew: fleet update -d {name}=…"
            )


def _refuse_occupied_paths(service: Service, before: Manifest, after: Manifest) -> None:
    """Refuse an update that brings a platform file to a path where the team has a file: only the team may move its file."""
    occupied = [
        path
        for path, entry in after.platform.items()
        if path not in before.platform and service.tree.get(path, entry) != entry and not service.waivers.of_path(path)
    ]
    if occupied:
        listed = "\n".join(f"  {path}" for path in occupied)
        raise FleetError(
            "the new version has files where the service has other files. Move or remove yours, or have them waived:\n"
            f"{listed}"
        )


def _write_platform(service: Service, before: Render, after: Render, report: Report) -> list[str]:
    """Write the platform's files, and return the paths that were written or deleted."""
    old, new, there = before.manifest.platform, after.manifest.platform, service.tree
    waived = {path for path in old.keys() | new.keys() if service.waivers.of_path(path)}
    for path in sorted(waived):
        if old.get(path) != new.get(path):
            report.waived.append(path)
            report.waived_diff += diff(before / path, after / path, path)
    # A file that the new version gives to the team stays unchanged, even if the version has no seed for it.
    left = [path for path in old if path in there and path not in new and path not in waived]
    gone = [path for path in left if after.manifest.owner_of(path) is Owner.PLATFORM]
    for path in gone:
        (service.root / path).unlink()
        remove_empty_folders(service.root, path)
    written = [path for path, entry in new.items() if there.get(path) != entry and path not in waived]
    for path in written:
        copy_file(after / path, make_room(service.root, path))
    report.written, report.deleted = len(written), len(gone)
    return [*gone, *written]


def _write_seeds(service: Service, after: Render, report: Report) -> list[str]:
    """Write the new seeds, and return their paths, in which migrations have other numbers than in the render."""
    seeds = {path: (after / path).read_bytes() for path in report.seeds.new}
    existing = {path: service.read(path) or b"" for path in service.tree if MIGRATION.match(path)}
    placed = append_migrations(seeds, existing)
    for path, content in placed.items():
        file = make_room(service.root, path)
        file.write_bytes(content)
        is_executable = path in seeds and after.manifest.team[path].mode == "100755"
        file.chmod(0o755 if is_executable else 0o644)
    report.seeds.new = sorted(placed)
    return report.seeds.new


def _compare_seeds(service: Service, before: Render, after: Render, report: Report) -> None:
    """Report the seeds that differ between the two renders. These changes are never applied."""
    for path, entry in after.manifest.team.items():
        may_differ = path in service.tree and before.manifest.team.get(path, entry) != entry
        if may_differ and entry_of(before / path) != entry_of(after / path):
            report.changed_seeds.append(path)
            report.changed_seeds_diff += diff(before / path, after / path, path)


def _verify(checkout: Path, after: Manifest) -> None:
    """Verify that every file of the platform without a waiver equals the render of the new version."""
    service = Service(checkout, "HEAD")
    assert after.answers.items() <= Answers.parse(service.read(ANSWERS_FILE)).values.items()
    wrong = [
        path
        for path, entry in after.platform.items()
        if service.tree.get(path) != entry and not service.waivers.of_path(path)
    ]
    if wrong:
        raise FleetError(f"after the update these files differ from the template's: {', '.join(wrong)}")
