"""The team's own pipelines, which run in addition to the platform's."""

import glob
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.judges import tools
from fleet.service.service import Service
from fleet.template.answers import Loader

WORKFLOWS = (".github/workflows/*.yml", ".github/workflows/*.yaml")
ACTIONS = (".github/*/action.yml", ".github/*/action.yaml")
PIPELINE = ".gitlab-ci.yml"
GITLAB = (".gitlab/*.yml", ".gitlab/**/*.yml")
# Keywords at the top of a GitLab pipeline, which are not jobs.
KEYWORDS = {"default", "include", "stages", "variables", "workflow", "image", "services", "cache", "spec"}
# A commit or a version.
REVISION = re.compile(r"[0-9a-f]{40}|v?\d+(\.\d+)*([-+.][\w.]+)?")

# The audits of zizmor that belong to workflow-pinned and workflow-least-privilege. All others belong to workflow-safe.
PINNED = {"unpinned-uses", "unpinned-images", "unpinned-tools", "ref-confusion", "impostor-commit", "stale-action-refs"}
PRIVILEGED = {
    "excessive-permissions",
    "artipacked",
    "secrets-inherit",
    "overprovisioned-secrets",
    "undocumented-permissions",
    "github-app",
}
# Strict, because zizmor would ignore a workflow that it cannot read. Only a waiver approves a finding, and not a comment.
SCANNED_AS = (
    *("--offline", "--no-progress", "--strict-collection", "--no-config", "--no-ignores"),
    *("--persona", "pedantic", "--min-severity", "medium", "--format", "json-v1"),
)


class _GitLab(Loader):
    """Read YAML as GitLab does, where a job may refer to parts of another job."""


_GitLab.add_constructor("!reference", lambda loader, node: loader.construct_sequence(node))


def _own(service: Service, *patterns: str) -> list[str]:
    """Return the team's files that match. The platform's files are equal to the template's, byte by byte."""
    return [path for path in service.files(*patterns) if path not in service.expected.platform]


def _found(service: Service) -> list[tuple[str, int, str, str]]:
    """Path, line, id and text of each finding of zizmor in the team's workflows and actions. Raises FleetError."""
    paths = _own(service, *WORKFLOWS, *ACTIONS)
    if not paths:
        return []
    patterns = tuple(glob.escape(path) for path in paths)
    return service.compute_once(f"zizmor 5 {version('zizmor')}", patterns, _scan)


def _scan(folder: Path) -> list[tuple[str, int, str, str]]:
    done = tools.run([tools.program("zizmor"), *SCANNED_AS, "."], cwd=folder)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        reason = done.stderr.partition("fatal: ")[2].partition("Stack backtrace:")[0] or done.stderr[-500:]
        raise FleetError(f"zizmor could not judge the workflows: {' '.join(reason.split())}") from None
    places = []
    for one in found:
        (place, *_) = [each for each in one["locations"] if each["symbolic"]["kind"] == "Primary"]
        path = place["symbolic"]["key"]["Local"]["verbatim_path"].removeprefix("./")
        what = f"{one['desc']}: {place['symbolic']['annotation']}"
        places.append((path, place["concrete"]["location"]["start_point"]["row"] + 1, one["ident"], what))
    return sorted(set(places))


class PinnedActions(Convention):
    """The tag of an action can be moved to other code, which then runs with the repository's rights."""

    id = "workflow-pinned"
    remedy = "pin actions by commit, with the version in a comment, and images by version"

    def check(self, service: Service) -> Iterator[Problem]:
        yield from (Problem(path, what, line) for path, line, id_, what in _found(service) if id_ in PINNED)
        for path in _own(service, *GITLAB):
            pipeline = _pipeline(service, path)
            for name, part in {"every job": pipeline, **pipeline}.items():
                for image in _images(part) if name != "variables" else ():
                    if "$" not in image and not re.search(r":\d|@sha256:", image.rpartition("/")[2]):
                        yield Problem(path, f"{name} runs in {image}, which may be another image tomorrow")
            for include in _unpinned(pipeline.get("include")):
                yield Problem(path, f"the pipeline includes {include}, which may be another pipeline tomorrow")


class LeastPrivilege(Convention):
    """An attacker who takes over a workflow has all of its permissions."""

    id = "workflow-least-privilege"
    remedy = (
        "write `permissions: {}` at the top, the needed permissions at each job, and `persist-credentials: false` at the "
        "checkout"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        yield from (Problem(path, what, line) for path, line, id_, what in _found(service) if id_ in PRIVILEGED)


class SafeWorkflows(Convention):
    """Text from strangers (a title, the name of a branch) must not become a command that runs with our rights."""

    id = "workflow-safe"
    remedy = "follow the remediation of the audit in https://docs.zizmor.sh/audits"

    def check(self, service: Service) -> Iterator[Problem]:
        for path, line, id_, what in _found(service):
            if id_ not in PINNED | PRIVILEGED:
                yield Problem(path, f"{what} ({id_})", line)


class Timeouts(Convention):
    """A job that hangs holds up a runner for six hours, and the release that waits for the job."""

    id = "workflow-timeouts"
    remedy = "give every job `timeout-minutes`, or `timeout` on GitLab"

    def check(self, service: Service) -> Iterator[Problem]:
        for path in _own(service, *WORKFLOWS):
            for document in service.yaml(path):
                jobs = document.get("jobs") if isinstance(document, dict) else None
                for name, job in jobs.items() if isinstance(jobs, dict) else ():
                    # A job that calls a workflow has the time limits of the jobs in that workflow.
                    if isinstance(job, dict) and "timeout-minutes" not in job and "uses" not in job:
                        yield Problem(path, f"{name} has no time limit")
        own = _own(service, *GITLAB)
        # GitLab reads these files as one pipeline.
        together = {name: part for path in (PIPELINE, *own) for name, part in _pipeline(service, path).items()}
        for path in own:
            for name, job in _pipeline(service, path).items():
                is_job = isinstance(job, dict) and name not in KEYWORDS and not str(name).startswith(".")
                # A job that starts another pipeline has the time limits of the jobs in that pipeline.
                if is_job and "trigger" not in job and not _is_limited(job, together):
                    yield Problem(path, f"{name} may run for as long as the project allows")


def _is_limited(job: dict[str, Any], together: dict[str, Any]) -> bool:
    parts = [job, together.get("default")]
    for part in parts:  # the list grows in the loop
        bases = part.get("extends") or [] if isinstance(part, dict) else []
        named = [bases] if isinstance(bases, str) else bases if isinstance(bases, list) else []
        new = [together.get(base) for base in named if isinstance(base, str)]
        parts += [base for base in new if not any(base is one for one in parts)]
    return any(isinstance(part, dict) and "timeout" in part for part in parts)


def _pipeline(service: Service, path: str) -> dict[str, Any]:
    """Read a file of a GitLab pipeline. Raises FleetError."""
    documents = service.yaml(path, _GitLab)
    return {name: part for document in documents if isinstance(document, dict) for name, part in document.items()}


def _images(part: Any) -> Iterator[str]:
    """Yield the images of a job, or of the defaults for all jobs."""
    if isinstance(part, dict):
        services = part.get("services")
        for image in (part.get("image"), *(services if isinstance(services, list) else ())):
            name = image.get("name") if isinstance(image, dict) else image
            if isinstance(name, str):
                yield name


def _unpinned(include: Any) -> Iterator[str]:
    """Yield the included files of other repositories whose content may change."""
    for one in include if isinstance(include, list) else [include]:
        entry = one if isinstance(one, dict) else {"remote": one} if str(one).startswith("http") else {}
        component, _, version = str(entry.get("component") or "").partition("@")
        if component and "$" not in version and not REVISION.fullmatch(version):
            yield component
        if "project" in entry and not REVISION.fullmatch(str(entry.get("ref"))):
            yield entry["project"]
        if "remote" in entry and "integrity" not in entry:
            yield entry["remote"]
