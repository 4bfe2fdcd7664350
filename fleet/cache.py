"""What is kept between runs. The folder may be deleted at any time."""

import fcntl
import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache as once
from importlib.metadata import entry_points
from pathlib import Path
from uuid import uuid4

from platformdirs import user_cache_path


def cache() -> Path:
    """The folder: FLEET_CACHE_DIR, or where this system keeps such things."""
    # Absolute, because git and other tools are run in folders of their own.
    return Path(os.environ.get("FLEET_CACHE_DIR") or user_cache_path("slipway-fleet")).absolute()


def offline() -> bool:
    """Whether to make do with what was fetched before: FLEET_OFFLINE is set, which processes inherit."""
    return bool(os.environ.get("FLEET_OFFLINE"))


@once
def version_of_checks() -> str:
    """Of this version's code, and of the organisation's: what an older one made of a service does not count."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(file.read_bytes())
    theirs = sorted(
        f"{one.dist.name} {one.dist.version}" for one in entry_points(group="fleet.conventions") if one.dist
    )
    return " ".join([code.hexdigest()[:16], *theirs])


def write_whole(file: Path, text: str) -> None:
    """All of it or nothing: others read it meanwhile, and what was there is better than half of this."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile, whose files nobody else may read.
    unfinished = file.with_name(f"{file.name[:100]}.{uuid4().hex}.part")
    try:
        # A name of a file need not be UTF-8, and a report of it is.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """One process and thread at a time: two fetches into one mirror fail each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
