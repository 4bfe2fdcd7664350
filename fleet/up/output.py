"""The output of the processes of a service: kept in its log, sent to the page, and shortened for people."""

import json
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from fleet.up import memory

MAX_LINE_BYTES = 64 * 1024
KEPT_LINES = 200
SHOWN_LINES = 25
SHOWN_CHARACTERS = 2000
"""The most of one shown line: a service may print megabytes without a line end, and the terminal shows the end of its output."""
HIDDEN = {"timestamp", "level", "event", "service", "trace_id", "span_id", "exception"}

Forward = Callable[[list[bytes]], None]


class Output:
    """The output of one service, taken in pieces. `forward` gets complete lines, and may raise sqlite3.Error."""

    def __init__(self, path: Path, forward: Forward) -> None:
        self._path, self._forward, self._rest = path, forward, b""
        self._log = memory.open_log(path)
        self._last: deque[bytes] = deque(maxlen=KEPT_LINES)

    def begin(self) -> None:
        """Forget the lines of the previous process."""
        self._last.clear()

    def take(self, received: bytes) -> None:
        # A full disk must not block the service, which waits until its output is read.
        with suppress(OSError):
            self._write(received)
        *whole, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            whole, self._rest = [*whole, self._rest], b""
        self._last.extend(whole)
        with suppress(sqlite3.Error):
            self._forward(whole)

    def _write(self, received: bytes) -> None:
        if self._log.tell() > memory.LOG_BYTES:
            before, self._log = self._log, memory.open_log(self._path)
            before.close()
        self._log.write(received)

    def end(self) -> None:
        """Take the last line, which has no line end if a process has ended within it."""
        if self._rest:
            self.take(b"\n")

    def tail(self) -> str:
        """Return the last traceback, or the last lines."""
        lines = list(readable(self._last))
        begins = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
        shown = lines[begins[-1] if begins else 0 :]
        # The marks below a line of a frame are noise; the mark of a syntax error, near the end, is not.
        frames = [line for line in shown[:-3] if not re.fullmatch(r"\s*[~^]+", line)]
        return "\n".join(line[:SHOWN_CHARACTERS] for line in (frames + shown[-3:])[-SHOWN_LINES:])

    def close(self) -> None:
        self._log.close()


def readable(lines: Iterable[bytes]) -> Iterator[str]:
    """Write each line of JSON as one line of text, with a traceback below. Other lines stay as they are."""
    for line in lines:
        text = line.decode(errors="replace").rstrip()
        try:
            facts = json.loads(text)
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict):
            if text:
                yield text
            continue
        rest = "".join(f" {name}={value}" for name, value in facts.items() if name not in HIDDEN)
        yield f"{str(facts.get('timestamp', ''))[11:23]} {facts.get('level', '')!s:<7} {facts.get('event', '')}{rest}"
        yield from str(facts.get("exception", "")).splitlines()
