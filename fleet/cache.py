"""What is kept between runs. The folder may be deleted at any time."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache as once
from importlib.metadata import entry_points
from pathlib import Path

from platformdirs import user_cache_path


def cache() -> Path:
    """The folder: FLEET_CACHE_DIR, or where this system keeps such things."""
    return Path(os.environ.get("FLEET_CACHE_DIR") or user_cache_path("slipway-fleet"))


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
    """All of it or nothing: other processes read the same folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False) as unfinished:
        unfinished.write(text)
    os.replace(unfinished.name, file)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """One process and thread at a time: two fetches into one mirror fail each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
