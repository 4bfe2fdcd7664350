"""Write files of a render into a checkout, and compare files."""

import difflib
import os
from pathlib import Path

from fleet.errors import FleetError
from fleet.template.manifest import entry_of


def make_room(root: Path, path: str) -> Path:
    """Make the folder of a file, and return the path of the file.

    Raises FleetError if the service has something else in the way. A link in the place of a folder would lead out of the
    service.
    """
    remedy = f"the template has {path}. Move yours away, commit, and run fleet again"
    for folder in reversed(Path(path).parents):
        there = root / folder
        if there.is_symlink() or there.is_file():
            raise FleetError(
                f"{folder} is a {'link' if there.is_symlink() else 'file'} and has to be a folder: {remedy}"
            )
        there.mkdir(exist_ok=True)
    if (root / path).is_dir() and not (root / path).is_symlink():
        raise FleetError(f"{path} is a folder and has to be a file: {remedy}")
    return root / path


def copy_file(source: Path, target: Path) -> None:
    """Replace a file by a copy of another file or link, with the executable bit."""
    if target.is_symlink() or target.exists():
        target.unlink()
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    target.write_bytes(source.read_bytes())
    target.chmod(0o755 if entry_of(source).mode == "100755" else 0o644)


def remove_empty_folders(root: Path, path: str) -> None:
    for folder in Path(path).parents:
        if folder == Path() or any((root / folder).iterdir()):
            return
        (root / folder).rmdir()


def _text(file: Path) -> str:
    """Return the text of a file or the target of a link; empty if there is neither.

    A link is not followed, because it may lead to a private file of the person who runs fleet, and reports are passed on.
    """
    if file.is_symlink():
        return os.fspath(file.readlink())
    return file.read_text(errors="replace") if file.exists() else ""


def diff(old: Path, new: Path, path: str) -> str:
    lines = [_text(file).splitlines(keepends=True) for file in (old, new)]
    return "".join(
        line if line.endswith("\n") else f"{line}\n"
        for line in difflib.unified_diff(*lines, fromfile=f"a/{path}", tofile=f"b/{path}")
    )
