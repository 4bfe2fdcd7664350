"""Read the state of a checkout on the disk: its installation, its migrations, its commit."""

import hashlib
import os
from pathlib import Path

from fleet.errors import FleetError
from fleet.git import git
from fleet.up.product import Checkout
from fleet.up.regular_file import read_regular_file

BUILT_FROM = ("uv.lock", "pyproject.toml", "chassis/pyproject.toml", ".copier-answers.yml")


def is_installed(folder: Path) -> bool:
    """Return whether `make setup` has nothing to do."""
    try:
        installed = (folder / ".venv/.ready").stat().st_mtime
        if not (folder / "uv.lock").exists():
            return False
    except OSError:
        return False
    return all(not (folder / name).exists() or (folder / name).stat().st_mtime <= installed for name in BUILT_FROM)


def is_moved(checkout: Checkout) -> bool:
    """Return whether the environment was made for another folder: the checkout was moved, or copied with its environment."""
    for file in checkout.folder.glob(f".venv/lib/python3*/site-packages/{checkout.package}.pth"):
        source = Path(os.fsdecode(read_regular_file(file)).strip())
        return not (source.is_dir() and source.samefile(checkout.folder / "src"))
    return False


def takes_socket(folder: Path) -> bool | None:
    """Return whether `serve` takes a descriptor; None if the chassis is not installed yet."""
    places = [folder / "chassis/src/chassis", *folder.glob(".venv/lib/python3*/site-packages/chassis")]
    files = [place / "settings/settings.py" for place in places if (place / "settings").is_dir()]
    return any(b"http_fd" in read_regular_file(file) for file in files if file.is_file()) if files else None


def migrations(checkout: Checkout, url: str) -> tuple[str, str]:
    """Return a digest of the database's address and its migrations, and the name of the service's newest migration."""
    own = sorted((checkout.folder / f"src/{checkout.package}/migrations/versions").glob("[!.]*.py"))
    chassis = checkout.folder / "chassis/src/chassis/database/migrations/versions"
    of_chassis = sorted(chassis.glob("*.py")) or [checkout.folder / "uv.lock"]
    digest = hashlib.sha256(url.encode())
    for path in [*own, *of_chassis]:
        digest.update(f"\0{path.name}\0".encode() + read_regular_file(path))
    return digest.hexdigest(), next((path.stem for path in reversed(own) if path.stem[:1].isdigit()), "")


def version(folder: Path) -> str:
    """Return the commit that is checked out; empty without a repository."""
    try:
        return git.answer(folder, "rev-parse", "--short", "HEAD") or ""
    except FleetError:
        return ""
