"""Show git a repository without its configuration, and without the configuration of the person who runs fleet.

Many settings name programs that git starts, and many others change what git prints; both lists grow with each version of
git. So fleet gives git a stand-in for the shared part of the repository: a folder with links to the objects and refs, and a
configuration that fleet writes. That configuration has only settings that describe the format of the repository and of the
checkout, name the committer, or name a program in the person's own configuration (docs/decisions/0049).
"""

import hashlib
import os
import re
import shutil
import subprocess
from contextlib import suppress
from functools import cache as once
from pathlib import Path
from typing import NamedTuple

from fleet.cache import cache, file_lock, mark_used, preparing
from fleet.errors import FleetError, MachineError

CONFIGURATION_SECONDS = 60
"""The limit for reading the configuration, because an include may name a pipe that nobody writes to."""

MOST_BYTES = 2**22
"""The limit for files that are read here: HEAD, the commit of a branch, a path, a configuration. All are far smaller."""


class Repository(NamedTuple):
    """The folders of a repository.

    `private` has HEAD; a linked worktree has such a folder of its own. `shared` has objects, refs and the configuration.
    `root` has the files; a bare repository has none.
    """

    private: Path
    shared: Path
    root: Path | None

    @property
    def is_shallow(self) -> bool:
        """Whether the history is cut off."""
        return (self.shared / "shallow").exists()

    @property
    def is_partial(self) -> bool:
        """Whether the clone was made without all objects, for git to fetch them on demand."""
        return any((self.shared / "objects/pack").glob("*.promisor"))


def find(path: Path) -> Repository | None:
    """Find the repository that contains the folder as git does, but without reading the configuration."""
    path = Path(os.path.realpath(path))
    if not path.is_dir():
        return None
    for folder in (path, *path.parents):
        private = _private(folder / ".git")
        if private is not None:
            shared = _read_path(private, private / "commondir", "") or private
            is_bare = private == shared and _IS_BARE.search(_read(shared / "config")) is not None
            return Repository(private, shared, None if is_bare else folder)
        if all((folder / part).exists() for part in ("HEAD", "objects", "refs")):
            return Repository(folder, _read_path(folder, folder / "commondir", "") or folder, None)
    return None


def loose_head(path: Path, branch: str = "") -> str:
    """Return the commit of a branch or of HEAD, if git keeps the commit in a file of its own.

    The result is empty if only git can find it.
    """
    repository = find(path)
    if repository is None or (repository.shared / "reftable").exists():
        return ""
    head = f"ref: refs/heads/{branch}" if branch else os.fsdecode(_read(repository.private / "HEAD")).strip()
    name = _BRANCH.fullmatch(head)
    found = os.fsdecode(_read(repository.shared / name[1])).strip() if name else ""
    return found if _COMMIT.fullmatch(found) else ""


def _private(dot_git: Path) -> Path | None:
    try:
        if dot_git.is_dir():
            return dot_git if (dot_git / "HEAD").is_symlink() or (dot_git / "HEAD").exists() else None
    except PermissionError:
        return dot_git  # git meets the same error later, and reports it
    return _read_path(dot_git.parent, dot_git, "gitdir: ")


def _read_path(folder: Path, file: Path, prefix: str) -> Path | None:
    """Read the path of a folder, relative to `folder`, from a file of git."""
    text = os.fsdecode(_read(file)).rstrip("\n")
    if not text:
        return None
    return Path(os.path.normpath(folder / text.removeprefix(prefix))) if text.startswith(prefix) else None


def _read(file: Path) -> bytes:
    """Return the bytes of a file.

    The result is empty if the file is missing, unreadable, too long, or a pipe that nobody may ever write to.
    """
    try:
        if not file.is_file():
            return b""
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError:
        return b""
    return content if len(content) <= MOST_BYTES else b""


# The pattern allows no dots, because with `..` a name would lead out of the folder.
_BRANCH = re.compile(r"ref: (refs/heads/[\w/+-]+)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_IS_BARE = re.compile(rb"^\s*bare\s*=\s*true\b", re.IGNORECASE | re.MULTILINE)
_HAS_EXTENSIONS = re.compile(rb"^\s*\[\s*extensions", re.IGNORECASE | re.MULTILINE)


# --- The variables of git ---------------------------------------------------------------------------------------------

# The variables that `git rev-parse --local-env-vars` lists, in all versions of git, except the variables that carry
# configuration, because CI may pass a proxy, a certificate or a token in them.
OF_A_REPOSITORY = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
}

# The committer and the folder of git's own programs. Git gets no other variable with the prefix GIT_ from outside.
_KEPT = {f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")} | {"GIT_EXEC_PATH"}

# With these variables git reads no other configuration, asks nothing, fetches nothing, and shows history as committed.
_ALONE = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_GRAFT_FILE": os.path.join(os.devnull, "none"),
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


def without_repository() -> dict[str, str]:
    """Return the variables for git outside of any repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT} | _ALONE


def variables(repository: Repository, *, with_files: bool) -> dict[str, str]:
    """Return the variables for git in a repository, `with_files` for commands that read the checkout.

    Raises FleetError.
    """
    place = {"GIT_DIR": str(repository.private)}
    if with_files and repository.root is not None:
        place["GIT_WORK_TREE"] = str(repository.root)
    if repository.shared in _DETACHED:
        return without_repository() | place | {"GIT_COMMON_DIR": str(repository.shared)}
    settings = _format(repository.shared)
    if with_files and repository.root is not None:
        settings = [*settings, *_settings(repository), ("core.bare", "false")]
    else:
        settings = [*settings, ("core.bare", "true")]
    return without_repository() | place | {"GIT_COMMON_DIR": str(_stand_in(repository, settings))}


# --- The configuration of git -----------------------------------------------------------------------------------------

Setting = tuple[str, str]

# How files are stored in the checkout, and the committer. None of these settings can name a program.
_INERT = re.compile(
    r"core\.(autocrlf|eol|filemode|symlinks|ignorecase|precomposeunicode|excludesfile|attributesfile"
    r"|sparsecheckout|sparsecheckoutcone|trustctime|checkstat)"
    r"|(user|author|committer)\.(name|email)|user\.(useconfigonly|signingkey)|commit\.gpgsign|gpg\.format"
)
# Settings that count only if the person who runs fleet has made them: filters, such as Git LFS, and the programs that sign.
_OF_THE_PERSON = re.compile(r"filter\..*|gpg\..*")
_FORMATS = re.compile(r"extensions\.(objectformat|refstorage)")


@once
def _settings(repository: Repository) -> list[Setting]:
    """Return the settings for commands that look at files.

    Git only prints the configuration here, and starts nothing.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OF_A_REPOSITORY}
    listed = _listed(["--show-scope", "--includes"], environment | {"GIT_DIR": str(repository.private)})
    found = []
    for scope, setting in zip(listed[::2], listed[1::2], strict=False):
        key, value = _setting(setting)
        is_theirs = scope in ("local", "worktree")
        if _INERT.fullmatch(key) or (_OF_THE_PERSON.fullmatch(key) and not is_theirs):
            found.append((key, value))
    return found


@once
def _format_of(file: Path, content: bytes) -> list[Setting]:
    if not _HAS_EXTENSIONS.search(content):
        return []
    return [setting for setting in settings_of(file) if _FORMATS.fullmatch(setting[0])]


def _format(shared: Path) -> list[Setting]:
    """Return the settings for the format of objects and refs.

    The settings are read without git if the repository has git's first format, as most repositories have.
    """
    file = shared / "config"
    extensions = _format_of(file, _read(file))
    return [("core.repositoryformatversion", "1" if extensions else "0"), *extensions]


def settings_of(file: Path) -> list[Setting]:
    """Read one file of git's configuration, without the files that it includes. Raises FleetError."""
    return [_setting(one) for one in _listed(["--no-includes", "--file", str(file)], without_repository())]


def _listed(options: list[str], environment: dict[str, str]) -> list[str]:
    command = ["git", "config", "--null", *options, "--list"]
    try:
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, timeout=CONFIGURATION_SECONDS)
    except FileNotFoundError:
        raise MachineError("git is not installed, or not in PATH") from None
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"reading the configuration of git was given up after {CONFIGURATION_SECONDS} seconds"
        ) from None
    if done.returncode != 0:
        raise FleetError(f"git cannot read its configuration: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="surrogateescape").split("\0")[:-1]


def _setting(listed: str) -> Setting:
    key, _, value = listed.partition("\n")
    return key, value if "\n" in listed else "true"


# --- The stand-in -----------------------------------------------------------------------------------------------------

# Some of these may appear later, so a link may lead nowhere yet. There is no link to hooks.
_LINKED = ("objects", "refs", "packed-refs", "shallow", "info")
_LINKED_IF_THERE = ("reftable", "logs", "worktrees")


def _stand_in(repository: Repository, settings: list[Setting]) -> Path:
    """Return the folder that git takes for the shared part of the repository.

    It is made once, and kept in the cache.
    """
    links, config = _links(repository), _config(settings)
    inputs = "\0".join([config, *links.values()])
    digest = hashlib.sha256(inputs.encode(errors="surrogateescape")).hexdigest()[:40]
    folder = cache() / "repositories" / digest
    parts = {"config", *links}
    mark_used(folder)
    if not _has(folder, parts):
        with file_lock(folder):
            if not _has(folder, parts):  # another process or thread was faster, and uses it
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
    settings = [one for one in _format(repository.shared) + _settings(repository) if "sparse" not in one[0]]
    links = {name: target for name, target in _links(repository).items() if name != "worktrees"}
    folder.mkdir()
    _DETACHED.add(folder.resolve())
    _write(folder, links, _config([*settings, ("core.bare", "false")]))
    return without_repository() | {"GIT_DIR": str(repository.private), "GIT_COMMON_DIR": str(folder)}


# Stand-ins for second checkouts, which git uses without another stand-in.
_DETACHED: set[Path] = set()

# Git must not clean up, because the stand-in does not show git everything that uses an object.
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
