"""Run the programs of one service in process groups that the guard knows, and read what they write."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fleet.processes.programs import GATE, Guard
from fleet.up.output import Output

STOP_SECONDS = 8


class Process:
    """A running program. Use `start`."""

    def __init__(self, child: asyncio.subprocess.Process, output: Output, guard: Guard) -> None:
        self._child, self._output, self._guard = child, output, guard
        self._reading = asyncio.create_task(self._read())
        self.ended = asyncio.create_task(self._wait())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        output: Output,
        guard: Guard,
        descriptors: Sequence[int] = (),
    ) -> "Process":
        child = await asyncio.create_subprocess_exec(
            *GATE,
            *command,
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=descriptors,
            start_new_session=True,
        )
        guard.add(child.pid)
        assert child.stdin is not None
        with suppress(OSError):
            child.stdin.write(b"go\n")
            await child.stdin.drain()
            child.stdin.close()
        return cls(child, output, guard)

    @property
    def pid(self) -> int:
        return self._child.pid

    async def stop(self) -> None:
        """Send SIGTERM to the group, and SIGKILL to what is left of it after a while."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.ended.done():
                return
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            await asyncio.wait([self.ended], timeout=STOP_SECONDS)

    async def _wait(self) -> int:
        status = await self._child.wait()
        # Another program of the group may hold the pipe open, and must not delay the report that the process has ended.
        await asyncio.wait([self._reading], timeout=1)
        self._reading.cancel()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._guard.discard(self.pid)
        return status

    async def _read(self) -> None:
        assert self._child.stdout is not None
        while received := await self._child.stdout.read(2**16):
            self._output.take(received)
        self._output.end()


def describe_end(status: int) -> str:
    """Describe a status of a process, also the number of a signal without a name, such as 40."""
    if status >= 0:
        return f"it ended with status {status}"
    names = {one.value: one.name for one in signal.Signals}
    return f"it was ended by {names.get(-status, f'signal {-status}')}"
