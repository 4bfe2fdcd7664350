"""Show git a repository without its configuration, and without the configuration of the person who runs fleet.

Many settings name programs that git starts, and many others change what git prints; both lists grow with each version of
git. So fleet gives git a stand-in for the shared part of the repository: a folder with links to the objects and refs, and a
configuration that fleet writes. That configuration has only settings that describe the format of the repository and of the
checkout, name the committer, or name a program in the person's own configuration (docs/decisions/0049).
"""

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from fleet.cache import cache, file_lock, mark_used, preparing
from fleet.git.configuration import Setting, checkout_settings, format_settings
from fleet.git.environment import without_repository
from fleet.git.repository import Repository


def variables(repository: Repository, *, with_files: bool) -> dict[str, str]:
    """Return the variables for git in a repository, `with_files` for commands that read the checkout.

    Raises FleetError.
    """
    place = {"GIT_DIR": str(repository.private)}
    if with_files and repository.root is not None:
        place["GIT_WORK_TREE"] = str(repository.root)
    if repository.shared in _DETACHED:
        return without_repository() | place | {"GIT_COMMON_DIR": str(repository.shared)}
    settings = format_settings(repository.shared)
    if with_files and repository.root is not None:
        settings = [*settings, *checkout_settings(repository), ("core.bare", "false")]
    else:
        settings = [*settings, ("core.bare", "true")]
    return without_repository() | place | {"GIT_COMMON_DIR": str(_stand_in(repository, settings))}


# Git may make some of these later, so a link may lead nowhere at first. Without a link to the hooks, git runs none.
_LINKED = ("objects", "refs", "packed-refs", "shallow", "info")
_LINKED_IF_THERE = ("reftable", "logs", "worktrees")


def _stand_in(repository: Repository, settings: list[Setting]) -> Path:
    """Return the folder that git takes for the shared part of the repository. It is made once, and kept in the cache."""
    links, config = _links(repository), _config(settings)
    inputs = "\0".join([config, *links.values()])
    digest = hashlib.sha256(inputs.encode(errors="surrogateescape")).hexdigest()[:40]
    folder = cache() / "repositories" / digest
    parts = {"config", *links}
    mark_used(folder)
    if not _has(folder, parts):
        with file_lock(folder):
            if not _has(folder, parts):  # if another process or thread has made it meanwhile, it may be in use
                with preparing(folder) as part:
                    (part / "new").mkdir()
                    _write(part / "new", links, config)
                    shutil.rmtree(folder, ignore_errors=True)
                    (part / "new").rename(folder)
    return folder


def _has(folder: Path, parts: set[str]) -> bool:
    """Return whether the folder has all parts: a program that cleans up caches may have removed some."""
    with suppress(OSError):
        return parts <= set(os.listdir(folder))
    return False


def detach(repository: Repository, folder: Path) -> dict[str, str]:
    """Make a writable stand-in for a second checkout, and return the variables for git.

    Git keeps its records of that checkout in the stand-in, so that they leave no trace in the repository. Raises FleetError.
    """
    settings = [
        one for one in format_settings(repository.shared) + checkout_settings(repository) if "sparse" not in one[0]
    ]
    links = {name: target for name, target in _links(repository).items() if name != "worktrees"}
    folder.mkdir()
    _DETACHED.add(folder.resolve())
    _write(folder, links, _config([*settings, ("core.bare", "false")]))
    return without_repository() | {"GIT_DIR": str(repository.private), "GIT_COMMON_DIR": str(folder)}


# Stand-ins for second checkouts, which git uses without another stand-in.
_DETACHED: set[Path] = set()

# Git must not delete unused objects, because a stand-in does not show everything that uses an object, such as a worktree.
_NO_CLEANING = (("gc.auto", "0"), ("maintenance.auto", "false"))


def _links(repository: Repository) -> dict[str, str]:
    shared = str(repository.shared)
    there = [name for name in _LINKED_IF_THERE if os.path.exists(f"{shared}/{name}")]
    return {name: f"{shared}/{name}" for name in (*_LINKED, *there)}


def _write(folder: Path, links: dict[str, str], config: str) -> None:
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "config").write_text(config, errors="surrogateescape")


def _config(settings: list[Setting]) -> str:
    return "".join(_line(*setting) for setting in [*settings, *_NO_CLEANING])


def _line(key: str, value: str) -> str:
    section, _, rest = key.partition(".")
    subsection, _, name = rest.rpartition(".")
    header = f'[{section} "{_escaped(subsection)}"]' if subsection else f"[{section}]"
    return f'{header}\n\t{name} = "{_escaped(value)}"\n'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
