"""Write repositories with a given history, hundreds of commits in milliseconds."""

import json
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.support.commands import git

TODAY = date(2026, 11, 30)
QUESTIONS = (
    "Do the deployments of an existing monolith limit us, for example because a release waits for unrelated work?",
    "Can a separate team develop, deploy and run the service on its own, without meetings about each change?",
    "Are we ready to keep data consistent across services ourselves, without joins and shared transactions?",
)
DECISION = "docs/decisions/0001-a-service-of-its-own.md"


def decision(*answers: str) -> str:
    rows = "".join(f"| {question} | {answer} |\n" for question, answer in zip(QUESTIONS, answers, strict=True))
    return f"# 0001: A service of its own\n\n| question | answer |\n|---|---|\n{rows}"


def working_days_before(days: int) -> date:
    """Return the day that many days before today, or the Friday before it if it is a weekend."""
    day = TODAY - timedelta(days=days)
    return day - timedelta(days=max(day.weekday() - 4, 0))


@dataclass
class History:
    """The files that a service begins with, and its later commits and tags, in any order."""

    name: str
    owner: str = ""
    born: int = 1000
    files: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    consumes: tuple[str, ...] = ()
    events: list[tuple[int, int, str, dict[str, str | None], str]] = field(default_factory=list)
    tags: list[tuple[int, str]] = field(default_factory=list)

    def commit(self, days_ago: int, subject: str, files: dict[str, str | None], by: str = "ana") -> None:
        self.events.append((-days_ago, len(self.events), subject, files, by))

    def change(self, days_ago: int, part: str = "things", by: str = "ana") -> None:
        """A commit to the code of one aggregate."""
        number = len(self.events)
        self.commit(
            days_ago, f"Change {part} {number}", {f"src/{self.package}/domain/{part}.py": f"x = {number}\n"}, by
        )

    def change_contract(self, days_ago: int, subject: str = "") -> None:
        """A commit to the code and to the API's document that breaks nothing."""
        number = (1000 - days_ago) * 100 + len(self.events)
        files = {"specs/openapi.json": document(number), f"src/{self.package}/api/things.py": f"x = {number}\n"}
        self.commit(days_ago, subject or f"Offer more, by change {len(self.events)}", {**files})

    def update(self, days_ago: int, version: str) -> None:
        """A commit with an update of the template, and then a commit with the documents that are generated anew."""
        number = (1000 - days_ago) * 100 + len(self.events)
        files = {".copier-answers.yml": self._answers(version), "chassis/x.py": f"x = {number}\n"}
        self.commit(days_ago, f"Update to template {version}", {**files})
        self.commit(days_ago, "Generate the files", {"specs/openapi.json": document(number)})

    def tag(self, days_ago: int, name: str = "") -> None:
        self.tags.append((days_ago, name or f"v{len(self.tags) + 1}"))

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")

    def _answers(self, version: str) -> str:
        return yaml.safe_dump(
            {"_commit": version, "_src_path": "nowhere", "service_name": self.name, "owner": self.owner, **self.answers}
        )

    def write(self, folder: Path) -> Path:
        """Make the repository with a checkout."""
        component = {"kind": "Component", "metadata": {"name": self.name}}
        component["spec"] = {"owner": self.owner, "providesApis": [self.name], "consumesApis": [*self.consumes]}
        api = {"kind": "API", "metadata": {"name": self.name}, "spec": {"type": "openapi"}}
        first: dict[str, str | None] = {
            ".copier-answers.yml": self._answers("v1.0.0"),
            "catalog-info.yaml": yaml.safe_dump_all([component, api]),
            f"src/{self.package}/domain/things.py": "",
            DECISION: decision("no", "yes", "yes"),
            **self.files,
        }
        happened = sorted([(-self.born, -1, f"Start {self.name}", first, "ana"), *self.events])
        stream = bytearray()
        commits: list[tuple[int, int]] = []
        for mark, (days, _, subject, files, by) in enumerate(happened, 1):
            commits.append((days, mark))
            stream += _commit(mark, working_days_before(-days), subject, files, by)
        for days_ago, name in self.tags:
            mark = max(mark for days, mark in commits if days <= -days_ago)
            stream += _tag(mark, working_days_before(days_ago), name)
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch", "main")
        subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=bytes(stream), check=True)
        git(folder, "reset", "--quiet", "--hard")
        return folder


def _seconds(day: date) -> int:
    return int(datetime.combine(day, time(12), UTC).timestamp())


def _commit(mark: int, day: date, subject: str, files: dict[str, str | None], by: str) -> bytes:
    lines = bytearray(f"commit refs/heads/main\nmark :{mark}\n".encode())
    lines += f"author {by} <{by}@example.com> {_seconds(day)} +0000\n".encode()
    lines += f"committer {by} <{by}@example.com> {_seconds(day)} +0000\n".encode()
    lines += _data(subject)
    for path, text in files.items():
        quoted = '"{}"'.format(path.replace("\n", "\\n"))
        lines += f"D {quoted}\n".encode() if text is None else f"M 100644 inline {quoted}\n".encode() + _data(text)
    return bytes(lines)


def _tag(mark: int, day: date, name: str) -> bytes:
    head = f"tag {name}\nfrom :{mark}\ntagger ci <ci@example.com> {_seconds(day)} +0000\n"
    return head.encode() + _data("")


def _data(text: str) -> bytes:
    content = text.encode()
    return f"data {len(content)}\n".encode() + content + b"\n"


def document(number: int, **more: Any) -> str:
    """Return an API document that differs in a description, which breaks nothing, and has the further fields."""
    fields = {"field": {"type": "string"}, "more": {"type": "string", "description": f"By change {number}"}}
    schema = {"type": "object", "properties": fields | more, "required": ["field"]}
    answer = {"description": "", "content": {"application/json": {"schema": schema}}}
    get = {"operationId": "a", "summary": "a", "responses": {"200": answer}}
    return json.dumps({"openapi": "3.1.0", "info": {"title": "a", "version": "1"}, "paths": {"/v1/a": {"get": get}}})
