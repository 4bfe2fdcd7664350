"""Read the committed documents of another service: of a file, a folder, a git address, or an entry of fleet.toml."""

import difflib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fleet.errors import FleetError
from fleet.git import objects
from fleet.processes.resource_limits import limit_resources
from fleet.service import fleet_toml, mirror
from fleet.service.fleet_toml import Member
from fleet.template.answers import ANSWERS_FILE, load

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""The name of a service."""


@dataclass(frozen=True)
class Source:
    """The files of another service. `read` returns None for a missing file. If there is a `file`, it is the document itself."""

    shown: str
    read: Callable[[str], bytes | None]
    file: Path | None = None

    def document(self, path: str, kind: str) -> tuple[str, bytes]:
        """Return the name and the content of the document at that path in a service. Raises FleetError."""
        if self.file is not None:
            return str(self.file), self.file.read_bytes()
        content = self.read(path)
        if content is None:
            remedy = f"run `make specs` in the neighbour and commit the file, or name its {kind} file"
            raise FleetError(f"{self.shown} has no {path}: {remedy}")
        return f"{path} of {self.shown}", content


def find(name: str, source: str | None, config: Path) -> Source:
    """Find the files of a service at `source`, or else at its entry in fleet.toml. Raises FleetError."""
    path = Path(source) if source else None
    if path is not None and path.is_dir():
        return Source(str(path), lambda wanted: _read(path / wanted))
    if path is not None and path.is_file():
        return Source(str(path), lambda _: None, path)
    if source is not None:
        if not re.match(r"[\w+.-]+://|[^/\s]+:", source):
            raise FleetError(f"{source} is neither a file, a folder nor a git address: correct --from")
        member = Member(name, source)
    else:
        known = {one.name: one for one in fleet_toml.members(config)}
        if name not in known:
            raise FleetError(
                f"{config} lists no service {name}{nearest(name, known)}: add it, or name a source by --from"
            )
        member = known[name]
    commit = mirror.newest(member)
    return Source(member.shown_address, lambda wanted: objects.show(commit.repository, commit.id, wanted))


def parse(where: str, content: bytes, kind: str) -> Any:
    """Parse JSON or YAML. Raises FleetError."""
    try:
        text = content.decode()
        with limit_resources(where):
            return json.loads(text) if text.lstrip().startswith("{") else load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise FleetError(f"{where} cannot be parsed: {str(error).splitlines()[0]}. Write an {kind} document") from None


def own_answers(service: Path, command: str) -> dict[str, Any]:
    """Read the answers of the service that the command is for. Raises FleetError outside of a service."""
    try:
        answers = load((service / ANSWERS_FILE).read_bytes())
        answers = {**answers, "package": answers["service_name"].replace("-", "_")}
    except (OSError, LookupError, TypeError, AttributeError, yaml.YAMLError, RecursionError):
        raise FleetError(
            f"{service.resolve()} is not the root of a service: run `{command}` in the folder of {ANSWERS_FILE}"
        ) from None
    if NAME.fullmatch(answers["service_name"]) is None:  # the name becomes a part of paths and of code
        raise FleetError(
            f"{ANSWERS_FILE}: service_name is {answers['service_name']!r}, and has to be a name in kebab-case"
        )
    return answers


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the nearest names, or with the first names if none is near."""
    names = sorted(known)
    if near := difflib.get_close_matches(name, names, 3, 0.5):
        return f"; the nearest are {', '.join(near)}"
    return f"; there are {', '.join(names[:10])}{' and others' if names[10:] else ''}" if names else "; there are none"


def difference(name: str, old: str, new: str) -> str:
    """Return a unified diff of two texts; empty if they are equal."""
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), name, f"{name}, new", n=1)
    return "".join(lines)


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
