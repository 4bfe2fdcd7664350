"""Read files and trees of a repository by the object ids of git. What git says of an object is compared with its id."""

import hashlib
import os
import re
import select
import stat
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from fleet.errors import FleetError, OfThisMachine
from fleet.git import git

# More than any service has.
MOST_FILES = 100_000
# No system opens a file of a longer path.
LONGEST_PATH = 4096
# The forges accept no larger file either.
MOST_BYTES = 100 * 2**20
# Longer than nearly all files that people write.
HELD_BYTES = 2**17
# What a group of files may take in memory, beside its last file.
GROUP_BYTES = 64 * 2**20
_PART = 2**20
_HEADER = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([a-z]+) ([0-9]+)")


class Entry(NamedTuple):
    """A file as git records it: mode (100644, 100755, 120000) and the id of its bytes."""

    mode: str
    blob: str


Tree = dict[str, Entry]


def tree(repository: Path, ref: str = "HEAD") -> Tree:
    """Every file of a commit. Raises FleetError."""
    return Objects(repository).tree(ref)


def show(repository: Path, commit: str, path: str) -> bytes | None:
    """The bytes of one file at a commit; None if it has none. Raises FleetError."""
    objects = Objects(repository)
    blob = objects.find(f"{commit}:{path}", "blob")
    if blob is None:
        objects.root_of(commit)
    return None if blob is None else objects.read(blob)


def write_tree(repository: Path, commit: str, folder: Path, without: tuple[str, ...] = ()) -> None:
    """Write the files of a commit below the folder, their bytes as git has them; none of the folders `without` (`docs/`).

    A checkout would convert line ends and run filters, as the user has configured. Raises FleetError.
    """
    objects = Objects(repository)
    files = {path: entry for path, entry in objects.tree(commit).items() if not path.startswith(without)}
    contents = objects.read_all([entry.blob for entry in files.values()])
    for (path, entry), content in zip(files.items(), contents, strict=True):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if entry.mode == "120000":
            file.symlink_to(os.fsdecode(content))
            continue
        file.write_bytes(content)
        if entry.mode == "100755":
            file.chmod(0o755)


class Objects:
    """Reads by one process of git, from the first question until `close`: a check reads a hundred files."""

    # Their ids fit into the smallest pipe that Linux makes, so that nobody waits for the other to read.
    AT_A_TIME = 100

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up: OfThisMachine | None = None
        self._held: dict[str, bytes] = {}

    def find(self, name: str, kind: str) -> str | None:
        """The id of the object that a name stands for, such as `HEAD^{commit}` or `HEAD:README.md`; None if none."""
        if "\n" in name:
            return None
        (found,) = self._ask([name])
        return found.id if found and found.kind == kind else None

    def root_of(self, commit: str) -> str:
        """The id of its tree. Raises FleetError, in which git says why."""
        name = f"{commit}^{{tree}}"
        return self.find(name, "tree") or git.line(self._repository, "rev-parse", "--verify", name)

    def read(self, blob: str) -> bytes:
        """Raises FleetError if there is none, it is too large, or not what the id says."""
        return self._held[blob] if blob in self._held else next(self.read_all([blob]))

    def read_all(self, ids: list[str], kind: str = "blob") -> Iterator[bytes]:
        """In their order. Raises FleetError as `read` does."""
        answers: dict[str, _Object | None] = {}
        for at, one in enumerate(ids):
            if one in self._held:
                yield self._held[one]
                continue
            if one not in answers:
                answers.clear()
                group = dict.fromkeys(name for name in ids[at : at + self.AT_A_TIME] if name not in self._held)
                answers.update(zip(group, self._ask([*group]), strict=False))
            yield self._checked(one, kind, answers[one])

    def hold(self, blobs: list[str]) -> None:
        """Read these into memory, as far as they are small."""
        wanted = list(islice(dict.fromkeys(blobs), self.AT_A_TIME))
        for blob, content in zip(wanted, self.read_all(wanted), strict=True):
            if len(content) <= HELD_BYTES:
                self._held[blob] = content

    def tree(self, ref: str = "HEAD") -> Tree:
        """Every file of a commit. Raises FleetError, also for what git would never check out."""
        files: Tree = {}
        folders = [("", self.root_of(ref))]
        number = 0
        while folders:
            below = []
            seen: set[str] = set()
            contents = self.read_all([folder for _, folder in folders], "tree")
            for (path_of_folder, folder), content in zip(folders, contents, strict=True):
                for mode, name, found in self._entries(folder, content):
                    path = path_of_folder + name
                    number += 1  # a few objects can make a tree of a trillion folders
                    if number > MOST_FILES:
                        what = f"{self._repository} has more than {MOST_FILES:,} files and folders"
                        raise FleetError(f"{what}, and fleet looks at services of fewer")
                    _refuse_harmful(path)
                    if path.casefold() in seen:
                        raise FleetError(
                            f"{self._repository} has two files or folders called {path}, of which at most upper and lower "
                            "case differ, and not every system can hold both: rename or remove one of them"
                        )
                    seen.add(path.casefold())
                    if stat.S_ISDIR(mode):
                        below.append((f"{path}/", found))
                    elif kind := _MODES.get(stat.S_IFMT(mode) | (mode & 0o100 if stat.S_ISREG(mode) else 0)):
                        files[path] = Entry(kind, found)
            folders = below
        return dict(sorted(files.items()))

    def _entries(self, folder: str, content: bytes) -> Iterator[tuple[int, str, str]]:
        """Mode, name and id of what is in a folder."""
        width = len(folder) // 2
        at = 0
        while at < len(content):
            end = content.find(b"\0", at)
            mode, _, name = content[at:end].partition(b" ")
            at = end + 1 + width
            if end < 0 or at > len(content) or not 0 < len(mode) <= 6 or mode.strip(b"01234567"):
                raise FleetError(f"the tree with the id {folder} is damaged: clone {self._repository} anew")
            yield int(mode, 8), name.decode(errors="surrogateescape"), content[end + 1 : at].hex()

    def _checked(self, one: str, kind: str, answer: "_Object | None") -> bytes:
        what = f"the {'file' if kind == 'blob' else kind} with the id {one}"
        if answer is None:
            hint = git.hint(self._repository) or f": clone {self._repository} anew"
            raise OfThisMachine(f"git has lost {what}{hint}")
        refuse_large(what, answer.size)
        if object_id(kind, answer.content, "sha256" if len(one) == 64 else "sha1") != one:
            raise OfThisMachine(f"{what} has another content than its id says: clone {self._repository} anew")
        return answer.content

    def _ask(self, names: list[str]) -> list["_Object | None"]:
        """What git says of the first of these names: at least of one. Raises OfThisMachine."""
        with self._lock:
            if self._given_up:  # each of a hundred files would take as long
                raise OfThisMachine(str(self._given_up))
            # Again, because the process may have been killed before.
            if answers := self._answers(names) or self._answers(names):
                return answers
        hint = git.hint(self._repository) or f": clone {self._repository} anew"
        raise OfThisMachine(f"git ends without an answer when it reads {names[0]}{hint}")

    def _answers(self, names: list[str]) -> list["_Object | None"]:
        """As many as git gives before it ends, and as fit into GROUP_BYTES."""
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        printed = _Printed(process.stdout)
        answers: list[_Object | None] = []
        try:
            with suppress(BrokenPipeError, EOFError):  # git has ended
                process.stdin.write("".join(f"{name}\n" for name in names).encode(errors="surrogateescape"))
                process.stdin.flush()
                while len(answers) < len(names) and sum(len(one.content) for one in answers if one) < GROUP_BYTES:
                    answers.append(printed.object())
        except TimeoutError:
            why = f"reading {self._repository} was given up after {git.LIMIT_SECONDS:g} seconds: clone it anew"
            self._given_up = OfThisMachine(why)
            raise self._given_up from None
        finally:
            if len(answers) < len(names):  # what comes next would be taken for another file
                self._end()
        return answers

    def _started(self) -> subprocess.Popen[bytes]:
        command, environment = git.command(self._repository, ("cat-file", "--batch"))
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
        except FileNotFoundError:
            raise OfThisMachine("git is not installed, or not in PATH") from None
        self._ended = weakref.finalize(self, process.communicate)
        return process

    def close(self) -> None:
        """End the process; the next question starts another one."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            self._ended()


class _Object(NamedTuple):
    """What git says of an object; without its content if that is too large."""

    id: str
    kind: str
    size: int
    content: bytes


class _Printed:
    """The answers of `git cat-file --batch`. Raises TimeoutError if git takes too long for them, EOFError if it has ended."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe.fileno()
        self._ready = select.poll()
        self._ready.register(self._pipe, select.POLLIN)
        self._deadline = time.monotonic() + git.LIMIT_SECONDS
        self._read = bytearray()

    def object(self) -> _Object | None:
        """The next answer; None where the object is missing."""
        while (end := self._read.find(b"\n")) < 0:
            self._read_more()
        header = _HEADER.fullmatch(bytes(self._read[:end]))
        del self._read[: end + 1]
        if header is None:
            return None
        id_, kind, size = header[1].decode(), header[2].decode(), int(header[3])
        if size <= MOST_BYTES:
            return _Object(id_, kind, size, self._take(size + 1)[:-1])
        for start in range(0, size + 1, _PART):
            self._take(min(_PART, size + 1 - start))
        return _Object(id_, kind, size, b"")

    def _take(self, size: int) -> bytes:
        while len(self._read) < size:
            self._read_more()
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    def _read_more(self) -> None:
        if not self._ready.poll(max(self._deadline - time.monotonic(), 0) * 1000):
            raise TimeoutError
        part = os.read(self._pipe, _PART)
        if not part:
            raise EOFError
        self._read += part


_MODES = {stat.S_IFREG: "100644", stat.S_IFREG | 0o100: "100755", stat.S_IFLNK: "120000"}

# Characters that the file system of macOS passes over in names.
_UNSEEN = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


def _refuse_harmful(path: str) -> None:
    """Raises FleetError for a path that git would never check out: it leaves the folder, or is inside of .git."""
    seen = path if path.isascii() else _UNSEEN.sub("", path)
    if len(path) > LONGEST_PATH or any(part in ("", ".", "..") or part.lower() == ".git" for part in seen.split("/")):
        what = "leaves its folder, is git's own, or is too long"
        raise FleetError(f"the repository has a path that {what}, {path[:200]}: remove it there")


def refuse_large(what: str, size: int) -> None:
    """Raises FleetError for a file that is too large to be looked at."""
    if size > MOST_BYTES:
        raise FleetError(
            f"{what} has {size >> 20:,} MiB, and fleet reads files of up to {MOST_BYTES >> 20} MiB: keep it outside of git"
        )


def blob_id(content: bytes) -> str:
    """What `git hash-object` prints."""
    return object_id("blob", content)


def object_id(kind: str, content: bytes, algorithm: str = "sha1") -> str:
    """The name of an object (a blob, a tree) in a repository that names its objects by this algorithm."""
    header = b"%s %d\0" % (kind.encode(), len(content))
    return hashlib.new(algorithm, header + content, usedforsecurity=False).hexdigest()
