"""Read files and trees of a repository by the object ids of git. The content of each object is compared with its id."""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from fleet.errors import FleetError, MachineError
from fleet.git import git
from fleet.git.cat_file import CatFile, Object, refuse_large

# The most files and folders of a commit: more than any service has.
MOST_FILES = 100_000
# No system opens a file with a longer path.
LONGEST_PATH = 4096
# Larger files are not preloaded. Nearly all files that people write are smaller.
PRELOADED_BYTES = 2**17


class Entry(NamedTuple):
    """A file as git records it: mode (100644, 100755, 120000) and the id of its bytes."""

    mode: str
    blob: str


Tree = dict[str, Entry]


def tree(repository: Path, ref: str = "HEAD") -> Tree:
    """Read every file of a commit. Raises FleetError."""
    return Objects(repository).tree(ref)


def show(repository: Path, commit: str, path: str) -> bytes | None:
    """Read the bytes of one file at a commit; None if the commit has no such file. Raises FleetError."""
    objects = Objects(repository)
    blob = objects.find(f"{commit}:{path}", "blob")
    if blob is None:
        objects.root_of(commit)
    return None if blob is None else objects.read(blob)


def write_tree(repository: Path, commit: str, folder: Path, without: tuple[str, ...] = ()) -> None:
    """Write the files of a commit below the folder, byte by byte, except files in the folders `without` (`docs/`).

    A checkout would convert line ends and run filters, as the user has configured. Raises FleetError.
    """
    objects = Objects(repository)
    files = {path: entry for path, entry in objects.tree(commit).items() if not path.startswith(without)}
    for pair in confusable_pairs(files):
        raise FleetError(f"{repository} has {describe_pair(pair)}")
    contents = objects.read_all([entry.blob for entry in files.values()])
    for parent in {os.path.dirname(path) for path in files}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    for (path, entry), content in zip(files.items(), contents, strict=True):
        file = folder / path
        if entry.mode == "120000":
            file.symlink_to(os.fsdecode(content))
            continue
        file.write_bytes(content)
        if entry.mode == "100755":
            file.chmod(0o755)


class Objects:
    """Read the objects of a repository, a hundred in a check. So one process of git answers all questions until `close`."""

    # The ids of one group fit into the smallest pipe of Linux. So fleet can write all of them before it reads an answer.
    AT_A_TIME = 100

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._git = CatFile(repository)
        self._preloaded: dict[str, bytes] = {}

    def find(self, name: str, kind: str) -> str | None:
        """Find the id of an object by a name such as `HEAD^{commit}` or `HEAD:README.md`; None if there is no such object."""
        if "\n" in name:
            return None
        (found,) = self._git.ask([name])
        return found.id if found and found.kind == kind else None

    def root_of(self, commit: str) -> str:
        """Find the id of a commit's tree. Raises FleetError with git's message."""
        name = f"{commit}^{{tree}}"
        return self.find(name, "tree") or git.line(self._repository, "rev-parse", "--verify", name)

    def read(self, blob: str) -> bytes:
        """Read a file by its id. Raises FleetError if the file is missing, too large, or differs from its id."""
        return self._preloaded[blob] if blob in self._preloaded else next(self.read_all([blob]))

    def read_all(self, ids: list[str], kind: str = "blob") -> Iterator[bytes]:
        """Read objects in the order of their ids. Raises FleetError as `read` does."""
        answers: dict[str, Object | None] = {}
        for at, one in enumerate(ids):
            if one in self._preloaded:
                yield self._preloaded[one]
                continue
            if one not in answers:
                answers.clear()
                group = dict.fromkeys(name for name in ids[at : at + self.AT_A_TIME] if name not in self._preloaded)
                answers.update(zip(group, self._git.ask([*group]), strict=False))
            yield self._verify(one, kind, answers[one])

    def preload(self, blobs: list[str]) -> None:
        """Read the first AT_A_TIME of these files into memory, except large files."""
        wanted = list(islice(dict.fromkeys(blobs), self.AT_A_TIME))
        for blob, content in zip(wanted, self.read_all(wanted), strict=True):
            if len(content) <= PRELOADED_BYTES:
                self._preloaded[blob] = content

    def tree(self, ref: str = "HEAD") -> Tree:
        """Read every file of a commit. Raises FleetError, also for a path that git would never check out."""
        files: Tree = {}
        folders = [("", self.root_of(ref))]
        seen: set[str] = set()
        while folders:
            subfolders = []
            contents = self.read_all([id_ for _, id_ in folders], "tree")
            for (folder, id_), content in zip(folders, contents, strict=True):
                for mode, name, found in self._entries(id_, content):
                    path = folder + name
                    self._refuse_path(path, seen)
                    if stat.S_ISDIR(mode):
                        subfolders.append((f"{path}/", found))
                    elif kind := _MODES.get(stat.S_IFMT(mode) | (mode & 0o100 if stat.S_ISREG(mode) else 0)):
                        files[path] = Entry(kind, found)
            folders = subfolders
        return dict(sorted(files.items()))

    def close(self) -> None:
        """End the process. The next question starts another process."""
        self._git.close()

    def _refuse_path(self, path: str, seen: set[str]) -> None:
        """Refuse a harmful or repeated path, and a path beyond MOST_FILES: a few objects can make a tree of a trillion folders."""
        if len(seen) >= MOST_FILES:
            what = f"{self._repository} has more than {MOST_FILES:,} files and folders"
            raise FleetError(f"{what}, and fleet reads services of fewer")
        _refuse_harmful(path)
        if path in seen:
            raise FleetError(f"{self._repository} has two files or folders with the name {path}: remove one of them")
        seen.add(path)

    def _entries(self, folder: str, content: bytes) -> Iterator[tuple[int, str, str]]:
        """Yield mode, name and id of each entry of a folder."""
        width = len(folder) // 2
        at = 0
        while at < len(content):
            end = content.find(b"\0", at)
            mode, _, name = content[at:end].partition(b" ")
            at = end + 1 + width
            if end < 0 or at > len(content) or not 0 < len(mode) <= 6 or mode.strip(b"01234567"):
                raise FleetError(f"the tree with the id {folder} is damaged: clone {self._repository} anew")
            yield int(mode, 8), name.decode(errors="surrogateescape"), content[end + 1 : at].hex()

    def _verify(self, id_: str, kind: str, answer: Object | None) -> bytes:
        what = f"the {'file' if kind == 'blob' else kind} with the id {id_}"
        if answer is None:
            hint = git.hint(self._repository) or f": clone {self._repository} anew"
            raise MachineError(f"git has lost {what}{hint}")
        refuse_large(what, answer.size)
        if object_id(kind, answer.content, "sha256" if len(id_) == 64 else "sha1") != id_:
            raise MachineError(f"the content of {what} does not match the id: clone {self._repository} anew")
        return answer.content


_MODES = {stat.S_IFREG: "100644", stat.S_IFREG | 0o100: "100755", stat.S_IFLNK: "120000"}

# Characters that the file system of macOS ignores in names.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


def _refuse_harmful(path: str) -> None:
    """Refuse a path that git would never check out: it leaves the folder, or is inside of .git. Raises FleetError."""
    seen = path if path.isascii() else _IGNORED.sub("", path)
    if len(path) > LONGEST_PATH or any(part in ("", ".", "..") or part.lower() == ".git" for part in seen.split("/")):
        what = "leaves its folder, is git's own, or is too long"
        raise FleetError(f"the repository has a path that {what}, {path[:200]}: remove it there")


def confusable_pairs(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Find pairs of files or folders whose paths differ in upper and lower case or in Unicode's form of letters only."""
    names = dict.fromkeys(paths)
    for path in list(names):
        while (path := path.rpartition("/")[0]) and path not in names:
            names[path] = None
    spellings: dict[str, str] = {}
    for name in names:
        known = spellings.setdefault(_folded(name), name)
        if known != name:
            yield known, name


def _folded(name: str) -> str:
    """Return a form of the name that is equal for two names which some file systems take for one name.

    For example, é is one character, or e and an accent.
    """
    return name.casefold() if name.isascii() else normalize("NFD", normalize("NFD", name).casefold())


def describe_pair(pair: tuple[str, str]) -> str:
    return (
        f"the paths {pair[0]} and {pair[1]}, which {describe_difference(*pair)}, and not every system can hold both: "
        "rename or remove one of them"
    )


def describe_difference(one: str, other: str) -> str:
    """Return the difference of a pair as the predicate of a sentence."""
    is_form = normalize("NFC", one) == normalize("NFC", other)
    return f"differ {'in the Unicode form of their letters' if is_form else 'in upper and lower case'} only"


def blob_id(content: bytes) -> str:
    """Compute the id that `git hash-object` prints."""
    return object_id("blob", content)


def object_id(kind: str, content: bytes, algorithm: str = "sha1") -> str:
    """Compute the id of an object (a blob, a tree) in a repository that names its objects by this algorithm."""
    header = b"%s %d\0" % (kind.encode(), len(content))
    return hashlib.new(algorithm, header + content, usedforsecurity=False).hexdigest()
