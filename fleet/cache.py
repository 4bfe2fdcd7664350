"""The cache folder, which runs share. It may be deleted at any time."""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache as once
from importlib.metadata import entry_points
from pathlib import Path
from uuid import uuid4

from platformdirs import user_cache_path

# Files and folders that no run has used for this many days leave the cache.
UNUSED_DAYS = 30
DAY_SECONDS = 24 * 60 * 60
# The folders whose files and folders leave the cache one by one.
_PRUNED = (
    "compiled/*",
    "facts/*",
    "histories",
    "manifests/*",
    "maps",
    "pasts/*",
    "repositories",
    "services",
    "standings",
    "templates",
    "tools/*",
    "versions",
)
# The names in these folders are digests. FLEET_CACHE_DIR may be a folder that has `services` or `tools` of somebody else.
_OURS = re.compile(r"(__jinja2_)?[0-9a-f]{24}.*")


def cache() -> Path:
    """Return the path of the folder: FLEET_CACHE_DIR, or the system's folder for caches."""
    # The path is absolute, because git and other tools run in other folders.
    return Path(os.environ.get("FLEET_CACHE_DIR") or user_cache_path("slipway-fleet")).absolute()


def offline() -> bool:
    """Return whether FLEET_OFFLINE is set, so that nothing is fetched. Child processes inherit the variable."""
    return bool(os.environ.get("FLEET_OFFLINE"))


@once
def version_of_checks() -> str:
    """Identify the code of fleet and of the organisation's conventions: results of other code are not used."""
    code = hashlib.sha256()
    folders = os.walk(os.path.dirname(__file__))  # faster than Path.rglob
    for file in sorted(
        os.path.join(folder, name) for folder, _, names in folders for name in names if name.endswith(".py")
    ):
        code.update(Path(file).read_bytes())
    organisation = sorted(
        f"{one.dist.name} {one.dist.version}" for one in entry_points(group="fleet.conventions") if one.dist
    )
    return " ".join([code.hexdigest()[:16], *organisation])


def write_atomically(file: Path, text: str) -> None:
    """Write all of the text or nothing, because another process may read the file at the same time."""
    write_all({file: text})


def write_all(texts: dict[Path, str]) -> None:
    """Write all of the files or none of them: every step that is likely to fail comes before the first file is replaced."""
    unfinished: dict[Path, Path] = {}
    try:
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            # The module tempfile is not used, because only the owner could read its files.
            unfinished[file] = file.with_name(f"{file.name[:100]}.{uuid4().hex}.part")
            # A report may contain the name of a file that is not UTF-8.
            unfinished[file].write_text(text, encoding="utf-8", errors="backslashreplace")
        for file, part in unfinished.items():
            part.replace(file)
    finally:
        for part in unfinished.values():
            part.unlink(missing_ok=True)


def prune() -> None:
    """Remove from the cache, at most once a day, what no run has used for UNUSED_DAYS."""
    folder, stamp = cache(), cache() / "pruned"
    with suppress(OSError):  # the cache may be missing, or another run prunes it as well
        if time.time() - stamp.stat().st_mtime < DAY_SECONDS:
            return
        for entry in (one for pattern in _PRUNED for part in folder.glob(pattern) for one in part.glob("*")):
            if _OURS.fullmatch(entry.name):
                _remove_unused(entry)
        for entry in folder.glob("kingfisher-[0-9]*"):
            _remove_unused(entry)
    with suppress(OSError):
        if folder.is_dir():
            stamp.touch()


def _remove_unused(entry: Path) -> None:
    with suppress(OSError):
        if time.time() - entry.lstat().st_mtime < UNUSED_DAYS * DAY_SECONDS:
            return
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def mark_used(path: Path) -> None:
    """Let `prune` keep a file or folder, by setting the time of its last change to now."""
    with suppress(OSError):
        os.utime(path)


@contextmanager
def preparing(target: Path) -> Generator[Path]:
    """Provide an empty folder for preparing `target`, whose lock the caller holds. A killed run leaves it to the next run."""
    folder = target.with_name(f"{target.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def file_lock(path: Path) -> Generator[None]:
    """Admit one process and thread at a time. Two fetches into one mirror, for example, would make each other fail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
