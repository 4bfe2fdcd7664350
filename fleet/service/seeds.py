"""Find the seeds that an update may write: files of the team that the service never had, and that the team never deleted."""

import re
from contextlib import suppress
from dataclasses import dataclass, field

from fleet.errors import FleetError
from fleet.git import git, objects
from fleet.service.revisions import MIGRATION, identity
from fleet.service.service import Service
from fleet.template.answers import ANSWERS_FILE, Answers, aggregates_in, without_aggregates
from fleet.template.manifest import Manifest
from fleet.template.release import Render

# An aggregate that no service has. A render needs an aggregate, and a render of this one alone has no files of real ones.
NOBODY = "Placeholder: {name: string(1)}"

# The answer messaging_style that brings the examples of these styles. `seeded` in the answers lists the styles.
STYLES = {
    frozenset[str](): "sync",
    frozenset({"events"}): "events",
    frozenset({"queues"}): "queues",
    frozenset({"events", "queues"}): "events-and-queues",
}


@dataclass
class Seeds:
    """The seeds of an update. It writes the `new` seeds, and not the seeds `left`: the team deleted them or their aggregate."""

    new: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def new_seeds(service: Service, before: Manifest, render: Render) -> Seeds:
    """Compare the render that the service has with its next render.

    An aggregate that the answers name for the first time gets all its files, even files that the team deleted before.
    """
    after = render.manifest
    known = {identity(path) for path in [*before.team, *service.tree]}
    candidates = [path for path in after.team if identity(path) not in known]
    if not candidates:
        return Seeds()
    asked: set[str] = set()
    if aggregates_in(after.answers).keys() - aggregates_in(before.answers).keys():
        asked = _only_with(render, before.answers["aggregates"])
    left = _of_dropped_aggregates(service, before, render) | find_deleted(service, candidates)
    seeds = Seeds()
    for path in candidates:
        (seeds.left if path in left and path not in asked else seeds.new).append(path)
    return seeds


def find_absent_aggregates(service: Service) -> dict[str, tuple[str, str]]:
    """Find the aggregates of the recorded answers that have neither a module nor a migration, and the patterns of both."""
    expected = service.expected
    patterns = {
        name: (
            f"src/{service.package}/*/{plural}.py",
            f"src/{service.package}/migrations/versions/*_create_{plural}.py",
        )
        for name, plural in zip(aggregates_in(expected.answers), expected.plurals, strict=True)
    }
    return {name: paths for name, paths in patterns.items() if not service.files(*paths)}


def find_delivered_answers(service: Service) -> dict[str, str]:
    """Find the answers by which the service got its files, where they differ from the recorded answers.

    Plain `copier update -d aggregates=…` records the answer without adding files, and so does an edit of the answers by hand.
    The files of the first commit's aggregates were there. For a later aggregate the history shows whether files were there.
    """
    data = {}
    missing = find_absent_aggregates(service).items()
    if never := {name for name, paths in missing if not _touched(service, paths)} - _of_the_first_commit(service):
        data["aggregates"] = without_aggregates(aggregates_in(service.expected.answers), never) or NOBODY
    seeded = frozenset(service.answers.values.get("seeded") or [])
    style = service.expected.answers.get("messaging_style")
    if any(value == style and not styles <= seeded for styles, value in STYLES.items()):
        data["messaging_style"] = STYLES[seeded & max(STYLES, key=len)]
    if service.expected.answers.get("sagas") == "postgres" and "sagas" not in seeded:
        data["sagas"] = "none"
    return data


def _touched(service: Service, paths: tuple[str, str]) -> bool:
    """Return whether any commit of the service's history touches these paths."""
    return bool(git.line(service.root, "rev-list", "--max-count=1", "--full-history", "HEAD", "--", *paths))


def _of_the_first_commit(service: Service) -> set[str]:
    """Return the aggregates in the oldest complete answers of the history, as far as the history is here.

    Answers without a version are not complete. A copy from a folder without git history has such answers.
    """
    commits = git.line(service.root, "rev-list", "--full-history", "HEAD", "--", ANSWERS_FILE).split()
    for commit in reversed(commits):
        with suppress(FleetError):
            return set(aggregates_in(Answers.parse(objects.show(service.root, commit, ANSWERS_FILE)).values))
    return set()


def _only_with(render: Render, aggregates: str) -> set[str]:
    """Return the team's paths in a render that a render with only these aggregates does not have."""
    other = render.release.manifest(render.answers, render.data | {"aggregates": aggregates})
    there = {identity(path) for path in other.team}
    return {path for path in render.manifest.team if identity(path) not in there}


def _of_dropped_aggregates(service: Service, before: Manifest, render: Render) -> set[str]:
    """Return the paths of the aggregates that the answers still name, although the team has removed their domain modules."""
    gone = {
        name
        for name, plural in zip(aggregates_in(before.answers), before.plurals, strict=True)
        for path in before.team
        if re.fullmatch(rf"src/[^/]+/domain/{plural}\.py", path) and path not in service.tree
    }
    if not gone:
        return set()
    kept = without_aggregates(aggregates_in(render.manifest.answers), gone)
    return _only_with(render, f"{NOBODY}\n{kept}")


def find_deleted(service: Service, paths: list[str]) -> set[str]:
    """Find the paths that a commit of the service's history deleted.

    The number of a migration may differ, and the service may have moved from another folder. Raises FleetError if the history
    is cut off, because a file that was deleted earlier would come back.
    """
    if git.locate(service.root).is_shallow:
        raise FleetError(
            f"the repository is a shallow clone, so its history does not show whether the team has deleted {paths[0]}, "
            "which the template brings: run `git fetch --unshallow` in it first"
        )
    # Every commit, and each parent of a merge: by default git skips the branches that a merge took nothing from.
    everywhere = ("--full-history", "--diff-merges=separate", "--diff-filter=D", "--no-renames")
    wanted = [f":(glob)**/{_any_number(path)}" for path in (*paths, ANSWERS_FILE)]
    listed = git.git(service.root, "log", *everywhere, "--name-only", "--format=", "-z", "--", *wanted)
    deleted = set(filter(None, listed.decode(errors="surrogateescape").split("\0")))
    # The former folders of the service. A deleted path is compared relative to its folder.
    folders = ["", *(path.removesuffix(ANSWERS_FILE) for path in deleted if path.endswith(f"/{ANSWERS_FILE}"))]
    gone = {identity(path.removeprefix(folder)) for path in deleted for folder in folders if path.startswith(folder)}
    return {path for path in paths if identity(path) in gone}


def _any_number(path: str) -> str:
    """Return a glob for the path, in which a migration may have any number, because the number differs between services."""
    found = MIGRATION.match(path)
    escaped = [re.sub(r"([*?\[\\])", r"\\\1", part) for part in (found.group(1, 3) if found else (path,))]
    return "[0-9]*".join(escaped)
