"""Stop the programs of a run that was killed. fleet/processes/programs.py starts this file without site-packages, to save memory.

The watchdog reads `+1234` when the process group 1234 has started and `-1234` when that group has ended. The system closes
the other end of the pipe when the run has ended, also by SIGKILL: then the watchdog stops the groups that are left.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

# The time that programs have after SIGTERM to clean up.
STOP_SECONDS = 20
KILL_SECONDS = 5


def main() -> None:
    """Wait for the end of the run, then stop the programs of the run.

    The watchdog ignores signals, so that Ctrl-C or a cancelled job does not end the watchdog before the programs.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        for group in _alive(groups):
            with suppress(ProcessLookupError):
                os.killpg(group, number)
        deadline = time.monotonic() + seconds
        while _alive(groups) and time.monotonic() < deadline:
            time.sleep(0.05)


def _alive(groups: Iterable[int]) -> list[int]:
    return [group for group in groups if _is_alive(group)]


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # raised by macOS for a group whose processes have all ended and are not collected yet
        return False
    return True


if __name__ == "__main__":
    main()
