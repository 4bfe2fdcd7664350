"""The two pipelines of a service as the Git hosts read them: the order, conditions and environment of jobs.

Only the parts of GitHub's and GitLab's languages that the template uses are known. All others are an error.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

GITHUB = ".github/workflows/ci.yaml"
GITLAB = ".gitlab-ci.yml"

METADATA = "artifacts-metadata.json"
"""The file that GitLab's runner writes next to the artifacts of a job, if the job asks for it."""


@dataclass(frozen=True)
class Command:
    """A command for a shell. `step` is GitHub's id of the step, by which its outputs are read."""

    text: str
    environment: dict[str, str]
    step: str = ""


@dataclass(frozen=True)
class Job:
    """A job that runs.

    `keeps` are files for later jobs. `takes` lists the files of earlier jobs, with their folders. `variables` is a file
    with lines for the environment of later jobs.
    """

    name: str
    commands: list[Command]
    needs: set[str]
    manual: bool = False
    keeps: list[str] = field(default_factory=list)
    takes: dict[str, str] = field(default_factory=dict)
    variables: str = ""


@dataclass(frozen=True)
class Event:
    """The cause of a pipeline, and the settings of the repository's administrators."""

    pull_request: bool = False
    queue: bool = False
    """Whether this is GitHub's merge queue, or GitLab's merge train."""
    public: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    commit: str = "0" * 40
    base: str = "0" * 40


class Missing(SimpleNamespace):
    """GitHub's value for a missing name: an empty value."""

    def __getattr__(self, name: str) -> str:
        return ""


class _Outputs(Missing):
    """The outputs of jobs or steps by their names. A skipped job has no outputs."""

    def __getattr__(self, name: str) -> Missing:  # ty: ignore[incompatible-method-override]
        return Missing(outputs=Missing())


# --- GitHub ---------------------------------------------------------------------------------------------------------


class GitHub:
    def __init__(self, service: Path, event: Event) -> None:
        self.workflow = yaml.safe_load((service / GITHUB).read_text())
        self.outputs: dict[str, dict[str, str]] = {}
        self._event = event
        self._steps: dict[str, Missing] = {}
        self._artifacts: dict[str, str] = {}
        self._names: dict[str, Any] = {
            "github": SimpleNamespace(
                event_name="merge_group" if event.queue else "pull_request" if event.pull_request else "push",
                event=SimpleNamespace(
                    repository=SimpleNamespace(private=not event.public),
                    merge_group=Missing(**({"base_sha": event.base} if event.queue else {})),
                ),
                repository="Acme/Billing",
                sha=event.commit,
            ),
            "vars": Missing(**event.variables),
            "secrets": Missing(**event.secrets),
        }

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs that run, each after the jobs that it needs. A job is evaluated at its turn."""
        done: set[str] = set()
        waiting = dict(self.workflow["jobs"])
        while ready := [name for name, job in waiting.items() if not self._needs(job) & waiting.keys()]:
            for name in ready:
                job = waiting.pop(name)
                condition = job.get("if", "true")
                # A job is skipped with a job that it needs, unless its condition asks for the state of the run.
                wanted = self._needs(job) <= done or "failure()" in condition
                if wanted and self.evaluate(condition):
                    yield self._job(name, job)
                    done.add(name)

    def ended(self, name: str, job: Job, outputs: dict[str, dict[str, str]]) -> None:
        """Pass the outputs of this job's steps on to later jobs."""
        self._steps = {step: Missing(outputs=Missing(**values)) for step, values in outputs.items()}
        raw = self.workflow["jobs"][name].get("outputs", {})
        self.outputs[name] = {key: self._text(value) for key, value in raw.items()}

    def starts(self) -> bool:
        """Return whether the event starts the workflow at all."""
        # YAML reads the key `on` as true.
        return self._names["github"].event_name in self.workflow[True]

    def evaluate(self, expression: str) -> Any:
        """Evaluate an expression, with or without braces. GitHub's `&&` and `||` return an operand, as in Python."""
        inner = expression.removeprefix("${{").removesuffix("}}").strip()
        python = inner.replace("&&", " and ").replace("||", " or ").replace("!=", "≠").replace("!", " not ")
        needs = {name: SimpleNamespace(outputs=Missing(**values)) for name, values in self.outputs.items()}
        # No job of a test's pipeline fails or is cancelled: the test would end there.
        state = {"failure": lambda: False, "cancelled": lambda: False}
        names = {**self._names, **state, "needs": _Outputs(**needs), "steps": _Outputs(**self._steps), "true": True}
        return eval(python.replace("≠", "!="), {"__builtins__": {}}, names)

    def _needs(self, job: dict[str, Any]) -> set[str]:
        needs = job.get("needs", [])
        return {needs} if isinstance(needs, str) else set(needs)

    def _job(self, name: str, job: dict[str, Any]) -> Job:
        around = {**self.workflow.get("env", {}), **job.get("env", {})}
        commands, keeps, takes = [], [], {}
        for step in job["steps"]:
            if not self.evaluate(step.get("if", "true")):
                continue
            if "run" in step:
                environment = {key: self._text(value) for key, value in {**around, **step.get("env", {})}.items()}
                commands.append(Command(self._text(step["run"]), environment, step.get("id", "")))
            elif "upload-artifact" in step["uses"]:
                keeps.append(step["with"]["path"])
                self._artifacts[step["with"]["name"]] = step["with"]["path"]
            elif "download-artifact" in step["uses"]:
                # The artifact of a single file has only the name of the file.
                path = self._artifacts[step["with"]["name"]]
                takes[path] = f"{step['with']['path']}/{Path(path).name}"
        return Job(name, commands, self._needs(job), False, keeps, takes)

    def _text(self, value: Any) -> str:
        return re.sub(r"\$\{\{.*?\}\}", lambda found: str(self.evaluate(found[0])), str(value))


# --- GitLab ---------------------------------------------------------------------------------------------------------


class GitLab:
    def __init__(self, service: Path, event: Event) -> None:
        self.file = yaml.safe_load((service / GITLAB).read_text())
        self.jobs_by_name = {name: self._whole(job) for name, job in self.file.items() if _is_job(name, job)}
        merging = event.pull_request or event.queue
        self._given = {
            "CI_PIPELINE_SOURCE": "merge_request_event" if merging else "push",
            "CI_MERGE_REQUEST_EVENT_TYPE": "merge_train" if event.queue else "detached" if merging else None,
            "CI_COMMIT_BRANCH": None if merging else "main",
            "CI_DEFAULT_BRANCH": "main",
            "CI_COMMIT_SHA": event.commit,
            "CI_MERGE_REQUEST_DIFF_BASE_SHA": event.base if merging else None,
            "CI_REGISTRY_IMAGE": "registry.gitlab.com/acme/billing",
            "CI_PROJECT_VISIBILITY": "public" if event.public else "private",
            "CI_SERVER_HOST": "gitlab.com",
            **event.variables,
            **event.secrets,
        }
        self._told: dict[str, str] = {}

    def jobs(self) -> Iterator[Job]:
        stages = self.file["stages"]
        for name, job in sorted(self.jobs_by_name.items(), key=lambda item: stages.index(item[1]["stage"])):
            rule = next((rule for rule in job.get("rules", [{}]) if self.evaluate(rule.get("if", "true"))), None)
            if rule is not None:
                yield self._job(name, job, rule)

    def starts(self) -> bool:
        return any(self.evaluate(rule["if"]) for rule in self.file["workflow"]["rules"])

    def ended(self, name: str, job: Job, outputs: dict[str, dict[str, str]]) -> None:
        self._told |= outputs.get("variables", {})

    def evaluate(self, condition: str) -> bool:
        python = re.sub(r"\$(\w+)", lambda found: f"names.get('{found[1]}')", condition)
        python = python.replace("&&", " and ").replace("||", " or ")
        return bool(eval(python, {"__builtins__": {}}, {"names": self._given, "null": None, "true": True}))

    def _whole(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the job with the jobs that it extends."""
        if "extends" not in job:
            return job
        base = self._whole(self.file[job["extends"]])
        return {**base, **job, "variables": {**base.get("variables", {}), **job.get("variables", {})}}

    def _job(self, name: str, job: dict[str, Any], rule: dict[str, Any]) -> Job:
        stages = self.file["stages"]
        earlier = {
            other
            for other, one in self.jobs_by_name.items()
            if stages.index(one["stage"]) < stages.index(job["stage"]) and other != name
        }
        written = {**self.file.get("variables", {}), **job.get("variables", {}), **rule.get("variables", {})}
        # On GitLab a job does not see a secret of another environment; here one set of secrets is enough.
        known = {key: value for key, value in self._given.items() if value is not None}
        environment = {key: self._expanded(value, known) for key, value in written.items()} | known | self._told
        needs = {one if isinstance(one, str) else one["job"] for one in job.get("needs", earlier)}
        taken = [
            path for other in needs if other in self.jobs_by_name for path in self._keeps(self.jobs_by_name[other])
        ]
        # These commands install what the image lacks, or sign in at the registry, and the test's machine needs neither.
        before = [text for text in job.get("before_script", []) if not re.match(r"apk add|echo .* docker login", text)]
        return Job(
            name,
            [Command(text, environment) for text in [*before, *job["script"]]],
            needs,
            rule.get("when") == "manual",
            self._keeps(job),
            {path: path for path in taken},
            job.get("artifacts", {}).get("reports", {}).get("dotenv", ""),
        )

    def _keeps(self, job: dict[str, Any]) -> list[str]:
        described = job.get("variables", {}).get("RUNNER_GENERATE_ARTIFACTS_METADATA") == "true"
        return job.get("artifacts", {}).get("paths", []) + [METADATA] * described

    def _expanded(self, value: Any, known: Mapping[str, str]) -> str:
        return re.sub(r"\$(\w+)", lambda found: known.get(found[1], ""), str(value))


def _is_job(name: str, job: Any) -> bool:
    return not name.startswith(".") and isinstance(job, dict) and "script" in job
