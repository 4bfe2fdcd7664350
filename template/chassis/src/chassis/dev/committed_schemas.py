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
    try:
        schemas = {path.stem: json.loads(text) for path, text in texts.items() if path.match(f"{messages}/*.json")}
        sagas = json.loads(texts.get(asyncapi, "{}")).get("x-sagas", {})
    except ValueError as error:
        raise NoBaseline(f"a document there is not JSON: {error}") from None
    return Baseline(schemas, sagas, texts.get(retired, ""))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:
        raise NoBaseline("git is not installed") from None
    if done.returncode != 0:
        raise NoBaseline(done.stderr.strip() or "it and what is checked out have no common history here")
    return done.stdout.strip()
