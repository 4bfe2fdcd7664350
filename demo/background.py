"""Commands that run in the background while the demo does something else."""

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from demo.service import ROOT, DemoFailed, environment

END_SECONDS = 15


class Background:
    """Run programs one after the other, in a process group of their own that ends with the context. `made` names the result."""

    def __init__(self, made: str, *commands: Sequence[str | Path], **settings: str) -> None:
        self.made = made
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", " && ".join(shlex.join(map(str, command)) for command in commands)],
            cwd=ROOT,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A program that a shell has just forked loses a signal that comes before its exec.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    self.process.communicate(timeout=END_SECONDS)

    def wait(self) -> None:
        """Wait for the end. Raises DemoFailed with the output if a program has failed."""
        output = self.process.communicate()[0]
        if self.process.returncode != 0:
            raise DemoFailed(f"{self.made} not made:\n{output}")
