"""Which of the team's files an update may still write: seeds that the service never had. Nothing that was deleted."""

import re
from contextlib import suppress
from dataclasses import dataclass, field

from fleet.errors import FleetError
from fleet.git import git, objects
from fleet.service.revisions import MIGRATION, identity
from fleet.service.service import Service
from fleet.template.answers import ANSWERS_FILE, Answers, aggregates_in
from fleet.template.manifest import Manifest
from fleet.template.release import Render

# Renders what belongs to no aggregate: the questionnaire wants at least one.
NOBODY = "Placeholder: {name: string(1)}"

# The answer messaging_style, by the styles whose example the template has brought (`seeded` of the answers).
STYLES = {
    frozenset[str](): "sync",
    frozenset({"events"}): "events",
    frozenset({"queues"}): "queues",
    frozenset({"events", "queues"}): "events-and-queues",
}


@dataclass
class Seeds:
    """`new` are to be written; `left` are not, because the team deleted them, or what they belong to."""

    new: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def new_seeds(service: Service, before: Manifest, render: Render) -> Seeds:
    """Compare what the service was made of with its next render.

    An aggregate that is named for the first time is asked for: its files come even if they were there once.
    """
    after = render.manifest
    known = {identity(path) for path in [*before.team, *service.tree]}
    candidates = [path for path in after.team if identity(path) not in known]
    if not candidates:
        return Seeds()
    asked: set[str] = set()
    if aggregates_in(after.answers).keys() - aggregates_in(before.answers).keys():
        asked = _only_with(render, before.answers["aggregates"])
    left = _of_dropped_aggregates(service, before, render) | deleted_before(service, candidates)
    seeds = Seeds()
    for path in candidates:
        (seeds.left if path in left and path not in asked else seeds.new).append(path)
    return seeds


def traceless(service: Service) -> dict[str, tuple[str, str]]:
    """Aggregates of the recorded answers without a module in any layer or a migration, and the patterns of both."""
    expected = service.expected
    patterns = {
        name: (
            f"src/{service.package}/*/{plural}.py",
            f"src/{service.package}/migrations/versions/*_create_{plural}.py",
        )
        for name, plural in zip(aggregates_in(expected.answers), expected.plurals, strict=True)
    }
    return {name: paths for name, paths in patterns.items() if not service.files(*paths)}


def delivered(service: Service) -> dict[str, str]:
    """The answers by which the service got its files, where the recorded answers go further.

    Plain `copier update -d aggregates=…` records the answer and brings no file, and so does an edit of the answers by hand.
    Aggregates of the first commit came with it, and the history shows whether files of a later one were ever here.
    """
    data = {}
    missing = traceless(service).items()
    if never := {name for name, paths in missing if not _touched(service, paths)} - _of_the_first_commit(service):
        blocks = aggregates_in(service.expected.answers)
        data["aggregates"] = "\n".join([block for name, block in blocks.items() if name not in never] or [NOBODY])
    seeded = frozenset(service.answers.values.get("seeded") or [])
    style = service.expected.answers.get("messaging_style")
    if any(value == style and not styles <= seeded for styles, value in STYLES.items()):
        data["messaging_style"] = STYLES[seeded & max(STYLES, key=len)]
    return data


def _touched(service: Service, paths: tuple[str, str]) -> bool:
    """Whether any commit of the service's history has to do with these paths."""
    return bool(git.line(service.root, "rev-list", "--max-count=1", "--full-history", "HEAD", "--", *paths))


def _of_the_first_commit(service: Service) -> set[str]:
    """The aggregates in the oldest complete answers of the history; of a shallow one, in the oldest that are here.

    Answers without a version, such as those of a copy from a folder without git history, are not complete.
    """
    commits = git.line(service.root, "rev-list", "--full-history", "HEAD", "--", ANSWERS_FILE).split()
    for commit in reversed(commits):
        with suppress(FleetError):
            return set(aggregates_in(Answers.parse(objects.show(service.root, commit, ANSWERS_FILE)).values))
    return set()


def _only_with(render: Render, aggregates: str) -> set[str]:
    """The team's paths in that render which would not be there with these aggregates."""
    other = render.release.manifest(render.answers, render.data | {"aggregates": aggregates})
    there = {identity(path) for path in other.team}
    return {path for path in render.manifest.team if identity(path) not in there}


def _of_dropped_aggregates(service: Service, before: Manifest, render: Render) -> set[str]:
    """Paths of aggregates that are in the answers still, but whose domain module the team has removed."""
    gone = {
        name
        for name, plural in zip(aggregates_in(before.answers), before.plurals, strict=True)
        for path in before.team
        if re.fullmatch(rf"src/[^/]+/domain/{plural}\.py", path) and path not in service.tree
    }
    if not gone:
        return set()
    kept = [block for name, block in aggregates_in(render.manifest.answers).items() if name not in gone]
    return _only_with(render, "\n".join([NOBODY, *kept]))


def deleted_before(service: Service, paths: list[str]) -> set[str]:
    """Find the paths that a commit of the service's history deleted, also at another number of a migration, or in the folder
    where the service was before it moved.

    Raises FleetError if the history is cut off: what was deleted before would come back.
    """
    if git.located(service.root).is_shallow:
        raise FleetError(
            f"the repository is a shallow clone, so its history does not show whether the team has deleted {paths[0]}, "
            "which the template brings: run `git fetch --unshallow` in it first"
        )
    # Every commit, and each parent of a merge: by itself git passes over the branches that a merge made no difference to.
    everywhere = ("--full-history", "--diff-merges=separate", "--diff-filter=D", "--no-renames")
    wanted = [f":(glob)**/{_any_number(path)}" for path in (*paths, ANSWERS_FILE)]
    listed = git.git(service.root, "log", *everywhere, "--name-only", "--format=", "-z", "--", *wanted)
    deleted = set(filter(None, listed.decode(errors="surrogateescape").split("\0")))
    # The folders that the service was in before it moved. Paths are compared relative to the folder that they were in.
    folders = ["", *(path.removesuffix(ANSWERS_FILE) for path in deleted if path.endswith(f"/{ANSWERS_FILE}"))]
    gone = {identity(path.removeprefix(folder)) for path in deleted for folder in folders if path.startswith(folder)}
    return {path for path in paths if identity(path) in gone}


def _any_number(path: str) -> str:
    """A glob for the path. For a migration it fits any number, because the number differs from service to service."""
    found = MIGRATION.match(path)
    escaped = [re.sub(r"([*?\[\\])", r"\\\1", part) for part in (found.group(1, 3) if found else (path,))]
    return "[0-9]*".join(escaped)
