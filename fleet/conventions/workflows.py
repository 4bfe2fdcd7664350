"""The team's own pipelines, beside the platform's."""

import glob
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from fleet import tools
from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.service import Service

WORKFLOWS = (".github/workflows/*.yml", ".github/workflows/*.yaml")
GITLAB = (".gitlab/*.yml", ".gitlab/**/*.yml")
# What of a GitLab pipeline is no job.
KEYWORDS = {"default", "include", "stages", "variables", "workflow", "image", "services", "cache", "spec"}

# What zizmor calls the two; the rest of what it knows is a third.
PINNED = {"unpinned-uses", "unpinned-images", "unpinned-tools", "ref-confusion", "impostor-commit", "stale-action-refs"}
PRIVILEGED = {
    "excessive-permissions",
    "artipacked",
    "secrets-inherit",
    "overprovisioned-secrets",
    "undocumented-permissions",
    "github-app",
}
SCANNED_AS = ("--offline", "--no-progress", "--persona", "pedantic", "--min-severity", "medium", "--format", "json-v1")


def _own(service: Service, *patterns: str) -> list[str]:
    """The team's files among these: the platform's are the template's, byte by byte."""
    return [path for path in service.files(*patterns) if path not in service.expected.platform]


def _found(service: Service) -> list[tuple[str, int, str, str]]:
    """Path, line, id and text of what zizmor finds in the team's workflows. Raises FleetError."""
    paths = _own(service, *WORKFLOWS)
    if not paths:
        return []
    patterns = tuple(glob.escape(path) for path in paths)
    return service.remembered(f"zizmor 2 {version('zizmor')}", patterns, _scan)


def _scan(folder: Path) -> list[tuple[str, int, str, str]]:
    done = tools.run([tools.program("zizmor"), *SCANNED_AS, "."], cwd=folder, HOME=str(folder))
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise FleetError(f"zizmor could not be run: {done.stderr.strip()[-500:]}") from None
    places = []
    for one in found:
        (place, *_) = [each for each in one["locations"] if each["symbolic"]["kind"] == "Primary"]
        path = place["symbolic"]["key"]["Local"]["verbatim_path"].removeprefix("./")
        what = f"{one['desc']}: {place['symbolic']['annotation']}"
        places.append((path, place["concrete"]["location"]["start_point"]["row"] + 1, one["ident"], what))
    return sorted(set(places))


class PinnedActions(Convention):
    """A tag of an action can be moved to other code, which then runs with the repository's rights."""

    id = "workflow-pinned"
    remedy = "pin actions by commit, with the version in a comment, and images by version"

    def check(self, service: Service) -> Iterator[Problem]:
        yield from (Problem(path, what, line) for path, line, id_, what in _found(service) if id_ in PINNED)
        for path in _own(service, *GITLAB):
            for name, job in _jobs(service, path):
                image = job.get("image")
                image = image.get("name") if isinstance(image, dict) else image
                if image and "$" not in image and not re.search(r":\d|@sha256:", image.rpartition("/")[2]):
                    yield Problem(path, f"{name} runs in {image}, which is another image tomorrow")


class LeastPrivilege(Convention):
    """A workflow that may do more than it needs does it for whoever takes it over."""

    id = "workflow-least-privilege"
    remedy = (
        "`permissions: {}` at the top, what a job needs at the job, and `persist-credentials: false` at the checkout"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        yield from (Problem(path, what, line) for path, line, id_, what in _found(service) if id_ in PRIVILEGED)


class SafeWorkflows(Convention):
    """What strangers write (a title, a branch's name) must not become a command that runs with our rights."""

    id = "workflow-safe"
    remedy = "https://docs.zizmor.sh/audits has the way out of each"

    def check(self, service: Service) -> Iterator[Problem]:
        for path, line, id_, what in _found(service):
            if id_ not in PINNED | PRIVILEGED:
                yield Problem(path, f"{what} ({id_})", line)


class Timeouts(Convention):
    """A job that hangs holds a runner for six hours, and the release behind it."""

    id = "workflow-timeouts"
    remedy = "timeout-minutes at every job; `timeout` on GitLab"

    def check(self, service: Service) -> Iterator[Problem]:
        for path in _own(service, *WORKFLOWS):
            for document in service.yaml(path):
                for name, job in (document.get("jobs") or {}).items() if isinstance(document, dict) else ():
                    # A job that calls a workflow has the time limits of that one's jobs.
                    if isinstance(job, dict) and "timeout-minutes" not in job and "uses" not in job:
                        yield Problem(path, f"{name} may run for ever")
        for path in _own(service, *GITLAB):
            default = next((one for one in service.yaml(path) if isinstance(one, dict)), {}).get("default") or {}
            for name, job in _jobs(service, path):
                if "timeout" not in job and "timeout" not in default:
                    yield Problem(path, f"{name} may run for as long as the project allows")


def _jobs(service: Service, path: str) -> Iterator[tuple[str, dict]]:
    for document in service.yaml(path):
        for name, job in document.items() if isinstance(document, dict) else ():
            if name not in KEYWORDS and not str(name).startswith(".") and isinstance(job, dict) and "script" in job:
                yield name, job
