"""The schemas of messages and the sagas that a commit of the service's repository published."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NoBaseline(Exception):
    """The commit or its history is missing, or its files cannot be read."""


@dataclass(frozen=True)
class Baseline:
    """The schemas of the messages of a commit, the versions of its sagas, and the text of its list of retired names."""

    schemas: dict[str, dict[str, Any]]
    sagas: dict[str, int]
    retired: str


def read(commit: str, *, messages: Path, asyncapi: Path, retired: Path) -> Baseline:
    """Read these paths below the working directory, which may be a folder inside the repository.

    The comparison is with the commit where the branch began: this branch need not keep what was added to the base since then.
    Raises NoBaseline.
    """
    branched_off = _git("merge-base", _git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}"), "HEAD")
    paths = _git(
        "ls-tree", "-r", "-z", "--name-only", branched_off, "--", *map(str, (messages, asyncapi, retired))
    ).split("\0")
    texts = {Path(path): _git("show", f"{branched_off}:./{path}") for path in paths if path}
    schemas = {path.stem: _object(path, text) for path, text in texts.items() if path.match(f"{messages}/*.json")}
    return Baseline(schemas, _sagas(asyncapi, texts.get(asyncapi, "{}")), texts.get(retired, ""))


def _object(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoBaseline(f"{path} is not JSON there: {error}") from None
    if not isinstance(found, dict):
        raise NoBaseline(f"{path} is not an object there: it has been changed by hand")
    return found


def _sagas(path: Path, text: str) -> dict[str, int]:
    found = _object(path, text).get("x-sagas", {})
    if not isinstance(found, dict) or not all(isinstance(version, int) for version in found.values()):
        raise NoBaseline(
            f"x-sagas of {path} is not an object with the version of each saga there: it has been changed by hand"
        )
    return found


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:
        raise NoBaseline("git is not installed") from None
    except UnicodeDecodeError:
        raise NoBaseline("a document there is not UTF-8") from None
    if done.returncode != 0:
        raise NoBaseline(done.stderr.strip() or "it and what is checked out have no common history here")
    return done.stdout.strip()
