"""The debugger of `breakpoint()` under `make dev` and in tests."""

import asyncio
import pdb  # noqa: T100
import sys
import time
from typing import Any
from weakref import WeakKeyDictionary

_HELD: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
"""How many seconds each event loop has stood still."""


class Debugger(pdb.Pdb):
    """pdb, during whose prompt the clock of the event loop stands still: no time limit of a request or query passes."""

    def interaction(self, *arguments: Any, **options: Any) -> None:
        began = time.monotonic()
        try:
            super().interaction(*arguments, **options)
        finally:
            _hold_clock(time.monotonic() - began)


def set_trace() -> None:
    """Open the prompt in the caller, as `breakpoint()` does. PYTHONBREAKPOINT names this function."""
    Debugger().set_trace(sys._getframe().f_back)


def _hold_clock(seconds: float) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    held = _HELD[loop] = _HELD.get(loop, 0) + seconds
    # asyncio reads its own clock through this method. uvloop does not, so `make dev` runs on asyncio's loop.
    loop.time = lambda: type(loop).time(loop) - held
