"""`fleet update`: one service to a version of the template, without a conflict and without touching what is the team's.

Not by merging. A platform-owned path is what the template makes of the answers, so the update writes the new render where
the old one was; whatever else was there is drift, and goes in a commit of its own first, where it can be seen and taken
back. That is the result that `copier update` has on a service without drift, byte by byte (tests/fleet compares them),
and no three-way merge can leave a conflict in it.
"""

import difflib
import os
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from fleet.check.drift import drift, waivers
from fleet.check.findings import Level
from fleet.errors import FleetError
from fleet.git import git, objects
from fleet.service.revisions import MIGRATION, chained
from fleet.service.seeds import delivered, new_seeds
from fleet.service.service import Service
from fleet.template.answers import ANSWERS_FILE, Answers, aggregates_in
from fleet.template.changelog import notes
from fleet.template.manifest import Manifest, entry_of
from fleet.template.migrations import migrations
from fleet.template.ownership import Owner, Ownership
from fleet.template.release import Release, Render
from fleet.template.template import Template
from fleet.update import finishing
from fleet.update.report import Report
from fleet.update.scars import refuse_scars
from fleet.update.worktree import commit, undisturbed, worktree

# `fleet check` calls such a file of the platform's edited, and sends whoever reads that here.
RESOLVE = (
    "an update that went wrong has left something to resolve. Take out the markers, delete the .rej files, and commit. What "
    "is the platform's need not be mended: `git rm` it and commit, then `fleet update` writes it anew"
)


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    data: dict[str, Any]
    to: str | None = None
    keep: bool = False
    finish: bool = True


def update(path: Path, options: Options) -> Report:
    """Bring the service that `path` is in to a template version, all of it or nothing.

    Raises FleetError, and leaves the repository as it was, if that is not possible.
    """
    # While git is asked, because importing Copier takes as long as all of git's answers. A daemon, so that a refusal does not
    # wait for the import.
    Thread(target=import_module, args=("fleet.template.rendering",), daemon=True).start()
    service = Service(path)
    _refuse_unready(service)
    start = _place(service.root)
    if reason := service.misnamed(str(options.data.get("service_name", service.name))):
        raise FleetError(f"{reason}: put service_name back into {ANSWERS_FILE}, or rename the folder first")
    service.template = template = Template(service.answers.source)
    template.refresh_if_possible()
    old = template.recorded(service.answers)
    new = _target(template, old, options.to)
    report = Report(service.root.name, old.version, new.version)
    with worktree(service.root, keep=options.keep) as checkout, tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        before = Render(old, service.answers, Path(folder, "old"))
        _heal(service, checkout, before, Ownership.of(new.folder), report)
        if had := delivered(service):
            before = Render(old, service.answers, Path(folder, "had"), had)
        if old.commit != new.commit:
            _migrate(checkout, old, new, report)
            report.notes = notes(old, new)
        if old.commit != new.commit or options.data or had:
            # A migration may have rewritten the answers.
            migrated = Service(checkout)
            after = Render(new, migrated.answers, Path(folder, "new"), options.data)
            _apply(migrated, before, after, report)
        if report.changed:
            refuse_scars(checkout, "the update would end with")
            if options.finish:
                report.unfinished = finishing.finish(checkout)
            _fast_forward(service.root, checkout, start)
    return report


def _refuse_unready(service: Service) -> None:
    if service.ref is not None:
        raise FleetError(f"{service.root} has no working copy: clone it first")
    refuse_scars(service.root, RESOLVE)
    if changed := git.changed_paths(service.root):
        shown = "\n".join(f"  {path}" for path in changed[:10]) + ("\n  …" if len(changed) > 10 else "")
        raise FleetError(f"there are uncommitted changes: commit or stash them first\n{shown}")
    if not git.succeeds(service.root, "symbolic-ref", "--quiet", "HEAD"):
        raise FleetError("no branch is checked out, so there is none to update: `git switch` to one first")
    for required in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        git.git(service.root, "var", required)
    if doubtful := [finding for finding in waivers(service) if finding.level is Level.ERROR]:
        listed = "\n".join(f"  {finding.reason}: {finding.remedy}" for finding in doubtful)
        raise FleetError(f"whether a waiver counts is not for an update to decide:\n{listed}")


def _target(template: Template, old: Release, to: str | None) -> Release:
    new = template.at(to) if to else template.newest()
    if template.follows(new, old):
        return new
    if to:
        raise FleetError(f"the service is at {old.version} already, and {new.version} is older: there is no way back")
    return old


def _heal(service: Service, checkout: Path, recorded: Render, next_list: Ownership, report: Report) -> None:
    """Put back the platform's files where they are not the recorded version's, in a commit of its own.

    Not those which the new version hands over to the team: from now on it is the team who says what they are.
    """
    kinds = ("drift-edited", "drift-deleted", "drift-mode")
    found = [finding.path for finding in drift(service) if finding.id in kinds]
    healed = [path for path in found if next_list.owner_of(path) is Owner.PLATFORM]
    for path in healed:
        target = _room(checkout, path)
        report.healed_diff += _diff(target, recorded / path, path)
        _copy(recorded / path, target)
    lines = "\n".join(f"- {path}" for path in healed)
    message = f"Restore platform-owned files to template {recorded.release.version}\n\n{lines}"
    report.healed = healed
    report.changed |= commit(checkout, message, healed)


def _migrate(checkout: Path, old: Release, new: Release, report: Report) -> None:
    for migration in migrations(old, new):
        said = migration.run(checkout)
        report.changed |= commit(checkout, f"Migrate to template {migration.version}: {migration.summary}\n\n{said}")
        report.migrated.append(f"{migration.version}: {migration.summary}" + (f"\n{said}" if said else ""))


def _apply(service: Service, before: Render, after: Render, report: Report) -> None:
    """Write what the new version makes of the answers into that checkout, in one commit."""
    checkout = service.root
    _refuse_untaken(after)
    _refuse_taken(service, before.manifest, after.manifest)
    touched = [*_write_platform(service, before, after, report), ANSWERS_FILE]
    _copy(after / ANSWERS_FILE, checkout / ANSWERS_FILE)
    report.seeds = new_seeds(service, before.manifest, after)
    touched += _write_seeds(service, after, report)
    report.answers = _about_answers(before.manifest, after.manifest)
    _compare_seeds(service, before, after, report)
    is_newer = report.old != report.new
    changed = f"Change the answers: {', '.join(after.data)}" if after.data else "Bring what the answers ask for"
    subject = f"Update to template {report.new}" if is_newer else changed
    report.changed |= commit(checkout, subject, touched)
    _verify(checkout, after.manifest)


def _refuse_untaken(after: Render) -> None:
    """An answer that the version does not take: Copier would put the default in its place, without a word."""
    for name, recorded in after.answers.values.items():
        read = after.manifest.answers.get(name, recorded)
        if name not in after.data and read != recorded:
            raise FleetError(
                f"{after.release.version} does not take the recorded answer {name}: {recorded!r}, it would read {read!r}. "
                f"Answer it anew: fleet update -d {name}=…"
            )


def _refuse_taken(service: Service, before: Manifest, after: Manifest) -> None:
    """A path that becomes the platform's, where there is a file of the team's: whose it is to move is not ours to say."""
    taken = [
        path
        for path, entry in after.platform.items()
        if path not in before.platform and service.tree.get(path, entry) != entry and not service.waivers.of_path(path)
    ]
    if taken:
        listed = "\n".join(f"  {path}" for path in taken)
        raise FleetError(
            "the new version brings files of its own where the service has other ones. Move or remove yours, or have it "
            f"waived:\n{listed}"
        )


def _write_platform(service: Service, before: Render, after: Render, report: Report) -> list[str]:
    """Returns the paths that were written or deleted."""
    old, new, there = before.manifest.platform, after.manifest.platform, service.tree
    waived = {path for path in old.keys() | new.keys() if service.waivers.of_path(path)}
    for path in sorted(waived):
        if old.get(path) != new.get(path):
            report.waived.append(path)
            report.waived_diff += _diff(before / path, after / path, path)
    # What the new version counts among the team's stays where it is, as it is, also if it has no seed for it.
    left = [path for path in old if path in there and path not in new and path not in waived]
    gone = [path for path in left if after.manifest.owner_of(path) is Owner.PLATFORM]
    for path in gone:
        (service.root / path).unlink()
        _remove_empty_folders(service.root, path)
    written = [path for path, entry in new.items() if there.get(path) != entry and path not in waived]
    for path in written:
        _copy(after / path, _room(service.root, path))
    report.written, report.deleted = len(written), len(gone)
    return [*gone, *written]


def _write_seeds(service: Service, after: Render, report: Report) -> list[str]:
    """Returns the paths, which for migrations are not those of the render."""
    seeds = {path: (after / path).read_bytes() for path in report.seeds.new}
    existing = {path: service.read(path) or b"" for path in service.tree if MIGRATION.match(path)}
    placed = chained(seeds, existing)
    for path, content in placed.items():
        file = _room(service.root, path)
        file.write_bytes(content)
        is_executable = path in seeds and after.manifest.team[path].mode == "100755"
        file.chmod(0o755 if is_executable else 0o644)
    report.seeds.new = sorted(placed)
    return report.seeds.new


def _about_answers(before: Manifest, after: Manifest) -> list[str]:
    then, now = aggregates_in(before.answers), aggregates_in(after.answers)
    return [
        *(
            f"{name} is no longer among the aggregates; its files are the team's and stay"
            for name in then.keys() - now.keys()
        ),
        *(
            f"{name} has other fields; its files are the team's: change them, and write a migration"
            for name in then.keys() & now.keys()
            if then[name] != now[name]
        ),
    ]


def _compare_seeds(service: Service, before: Render, after: Render, report: Report) -> None:
    """What the template would seed differently today. Worth a look; never applied."""
    for path, entry in after.manifest.team.items():
        if path in service.tree and before.manifest.team.get(path, entry) != entry:
            report.changed_seeds.append(path)
            report.changed_seeds_diff += _diff(before / path, after / path, path)


def _verify(checkout: Path, after: Manifest) -> None:
    """The promise, looked at once more: what is not waived is the render of the new version."""
    service = Service(checkout, "HEAD")
    assert after.answers.items() <= Answers.parse(service.read(ANSWERS_FILE)).values.items()
    wrong = [
        path
        for path, entry in after.platform.items()
        if service.tree.get(path) != entry and not service.waivers.of_path(path)
    ]
    if wrong:
        raise FleetError(f"after the update these are not what the template makes: {', '.join(wrong)}")


def _place(repository: Path) -> tuple[str, str]:
    """The branch that is checked out, HEAD if none is, and its commit."""
    branch = git.answer(repository, "symbolic-ref", "--quiet", "HEAD") or "HEAD"
    return branch, git.line(repository, "rev-parse", "HEAD")


def _fast_forward(repository: Path, checkout: Path, start: tuple[str, str]) -> None:
    """All of it or nothing, also where git stops half-way: at a full disk, a read-only folder, a branch that is locked."""
    head = git.line(checkout, "rev-parse", "HEAD")
    with undisturbed():
        if _place(repository) != start:
            raise FleetError("the service changed while it was updated; run it again on the branch that you mean")
        changed = git.changed_paths(repository)
        old, new = objects.tree(repository, start[1]), objects.tree(repository, head)
        # Not all that differs is git's to take back: an edit made meanwhile, or an ignored file, is why it may have stopped.
        stamps = {path: _stamp(repository / path) for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
        said = ""
        try:
            # To git an ignored file is expendable. To the developer whose it is, it is not.
            git.git(repository, "merge", "--quiet", "--ff-only", "--no-overwrite-ignore", head)
        except FleetError as error:
            said = f"\n{error}"
        if _place(repository) == (start[0], head):
            return
        written = {path for path, stamp in stamps.items() if _stamp(repository / path) != stamp}
        _take_back(repository, written, old, said)
    if changed or _place(repository) != start:
        raise FleetError(f"the service changed while it was updated; run it again{said}")
    raise FleetError(f"the update could not be put in place, and nothing was changed{said}")


def _stamp(file: Path) -> tuple[int, int] | None:
    """Another one as soon as somebody has written the file. None if there is no such file."""
    try:
        found = file.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _take_back(repository: Path, written: set[str], old: objects.Tree, said: str) -> None:
    """Have these paths as they are in HEAD, whose tree is `old`."""
    if not written:
        return
    try:
        for path in written - old.keys():
            (repository / path).unlink()
            _remove_empty_folders(repository, path)
        exact = ("--literal-pathspecs", "reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul")
        git.git(repository, *exact, stdin=_listed(written))
        git.git(repository, "checkout-index", "-u", "--force", "-z", "--stdin", stdin=_listed(written & old.keys()))
    except (OSError, FleetError) as error:
        raise FleetError(
            "the update stopped half-way and could not be taken back. The branch is as it was: mend what is said here, "
            f"then `git status` shows what to restore{said}\n{error}"
        ) from None


def _listed(paths: set[str]) -> bytes:
    return "\0".join(paths).encode(errors="surrogateescape")


def _room(root: Path, path: str) -> Path:
    """Where the file goes, in a folder that is there. Raises FleetError if the service has something else in the way.

    Through a link instead of a folder, the update would write where it leads, outside of the service.
    """
    remedy = f"the template has {path}. Move yours away, commit, and run it again"
    for folder in reversed(Path(path).parents):
        there = root / folder
        if there.is_symlink() or there.is_file():
            raise FleetError(
                f"{folder} is a {'link' if there.is_symlink() else 'file'} and has to be a folder: {remedy}"
            )
        there.mkdir(exist_ok=True)
    if (root / path).is_dir() and not (root / path).is_symlink():
        raise FleetError(f"{path} is a folder and has to be a file: {remedy}")
    return root / path


def _copy(source: Path, target: Path) -> None:
    """Bytes, the executable bit and links; whatever file is in the way goes."""
    if target.is_symlink() or target.exists():
        target.unlink()
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    target.write_bytes(source.read_bytes())
    target.chmod(0o755 if entry_of(source).mode == "100755" else 0o644)


def _remove_empty_folders(root: Path, path: str) -> None:
    for folder in Path(path).parents:
        if folder == Path() or any((root / folder).iterdir()):
            return
        (root / folder).rmdir()


def _text(file: Path) -> str:
    """The text of a file; the target of a link, which git keeps as its content; empty if there is neither.

    A link that is committed may lead to a file of the person who runs fleet, and the difference goes into reports.
    """
    if file.is_symlink():
        return os.fspath(file.readlink())
    return file.read_text(errors="replace") if file.exists() else ""


def _diff(old: Path, new: Path, path: str) -> str:
    lines = [_text(file).splitlines(keepends=True) for file in (old, new)]
    return "".join(
        line if line.endswith("\n") else f"{line}\n"
        for line in difflib.unified_diff(*lines, fromfile=f"a/{path}", tofile=f"b/{path}")
    )
