"""Read objects of a repository by one process of `git cat-file --batch`."""

import os
import re
import select
import subprocess
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from fleet.errors import FleetError, MachineError
from fleet.git import git

# The largest object to read. Git hosts accept no larger file either.
MOST_BYTES = 100 * 2**20
# The most memory for a group of objects, in addition to the last object of the group.
GROUP_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
_HEADER = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([a-z]+) ([0-9]+)")


class Object(NamedTuple):
    """An object as git prints it. The content of an object above MOST_BYTES is empty."""

    id: str
    kind: str
    size: int
    content: bytes


def refuse_large(subject: str, size: int) -> None:
    """Refuse a file that is too large to read. Raises FleetError."""
    if size > MOST_BYTES:
        raise FleetError(
            f"{subject} has {size >> 20:,} MiB, and fleet reads files of up to {MOST_BYTES >> 20} MiB: keep it outside of git"
        )


class CatFile:
    """A process of git that starts with the first question and ends with `close`. Threads may share it."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._timeout: MachineError | None = None

    def ask(self, names: list[str]) -> list[Object | None]:
        """Read the first of these objects, and further objects while all fit into GROUP_BYTES. None is a missing object.

        Raises MachineError.
        """
        with self._lock:
            # Git took too long for an earlier question, and would take as long for each of a hundred files.
            if self._timeout:
                raise MachineError(str(self._timeout))
            # Ask a second time, because the process may have been killed since the last question.
            if answers := self._answers(names) or self._answers(names):
                return answers
        hint = git.hint(self._repository) or f": clone {self._repository} anew"
        raise MachineError(f"git ends without an answer when it reads {names[0]}{hint}")

    def close(self) -> None:
        """End the process. The next question starts another process."""
        with self._lock:
            self._end()

    def _answers(self, names: list[str]) -> list[Object | None]:
        """Return the answers that git gives before it ends, as far as they fit into GROUP_BYTES."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        output = _Output(process.stdout)
        answers: list[Object | None] = []
        size = 0
        try:
            with suppress(BrokenPipeError, EOFError):  # git has ended
                process.stdin.write("".join(f"{name}\n" for name in names).encode(errors="surrogateescape"))
                process.stdin.flush()
                while len(answers) < len(names) and size < GROUP_BYTES:
                    answers.append(found := output.read_object())
                    size += len(found.content) if found else 0
        except TimeoutError:
            reason = f"reading {self._repository} was given up after {git.GIT_SECONDS:g} seconds: clone it anew"
            self._timeout = MachineError(reason)
            raise self._timeout from None
        finally:
            if len(answers) < len(names):  # the next question would read the rest of the output as its answers
                self._end()
        return answers

    def _start(self) -> subprocess.Popen[bytes]:
        command, environment = git.command(self._repository, ("cat-file", "--batch"))
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
        except FileNotFoundError:
            raise MachineError("git is not installed, or not in PATH") from None
        self._collect = weakref.finalize(self, process.communicate)
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            self._collect()


class _Output:
    """Parse the output of `git cat-file --batch`. Raises TimeoutError if git takes too long, EOFError if git has ended."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe.fileno()
        self._ready = select.poll()
        self._ready.register(self._pipe, select.POLLIN)
        self._deadline = time.monotonic() + git.GIT_SECONDS
        self._buffer = bytearray()

    def read_object(self) -> Object | None:
        """Read the next answer; None if the object is missing."""
        while (end := self._buffer.find(b"\n")) < 0:
            self._read_more()
        header = _HEADER.fullmatch(bytes(self._buffer[:end]))
        del self._buffer[: end + 1]
        if header is None:
            return None
        id_, kind, size = header[1].decode(), header[2].decode(), int(header[3])
        if size <= MOST_BYTES:
            return Object(id_, kind, size, self._take(size + 1)[:-1])
        for start in range(0, size + 1, _CHUNK_BYTES):
            self._take(min(_CHUNK_BYTES, size + 1 - start))
        return Object(id_, kind, size, b"")

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._read_more()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _read_more(self) -> None:
        if not self._ready.poll(max(self._deadline - time.monotonic(), 0) * 1000):
            raise TimeoutError
        chunk = os.read(self._pipe, _CHUNK_BYTES)
        if not chunk:
            raise EOFError
        self._buffer += chunk
