"""Read the log of `fleet update-all` for one service. Programs of the service have written it, so its lines are only text."""

import re
from pathlib import Path

from fleet.git.git import without_credentials

# The number of lines to show from the end of a log, which has the failure, and the most bytes to read of the log.
TAIL_LINES = 15
TAIL_BYTES = 200_000

# The line that GNU make prints about a failed target. Since version 4 it names the Makefile and the number of the line.
FAILED = re.compile(
    r"make(?P<inner>\[\d+\])?: \*\*\* \[(?:[^\]:]{1,200}:\d+: )?(?P<target>[a-z][a-z-]{0,40})\] Error \d+"
)


def last_lines(log: str) -> list[str]:
    """Return the end of a log, without credentials of addresses; nothing if there is no log."""
    return [without_credentials(line) for line in _lines(log)[-TAIL_LINES:]]


def failed_steps(log: str) -> list[str]:
    """Return the targets that `make check` ran and that failed, in the last attempt in the log."""
    steps: list[str] = []
    last: list[str] = []
    for found in filter(None, map(FAILED.match, _lines(log))):
        if found["inner"]:
            steps.append(found["target"])
        else:  # the make that fleet has started printed this line, so one attempt has ended
            last, steps = steps, []
    return list(dict.fromkeys(last))


def _lines(log: str) -> list[str]:
    file = Path(log)
    if not log or not file.is_file():
        return []
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - TAIL_BYTES))
        return opened.read().decode(errors="replace").splitlines()
