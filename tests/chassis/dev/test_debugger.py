"""While the prompt of a debugger is open, no time limit passes."""

import asyncio
import io
import sys
import time

from chassis.dev.debugger import Debugger

PROMPT_SECONDS = 0.5


class SlowToType(io.StringIO):
    """Somebody who looks at the prompt for a while, and then goes on."""

    def readline(self, *_: object) -> str:
        time.sleep(PROMPT_SECONDS)
        return "continue\n"


async def test_a_time_limit_waits_while_somebody_looks_at_the_prompt() -> None:
    # The first prompt reads files of the standard library, which takes long on a busy machine.
    Debugger(stdin=io.StringIO("continue\n"), stdout=io.StringIO(), nosigint=True).set_trace()
    debugger = Debugger(stdin=SlowToType(), stdout=io.StringIO(), nosigint=True)
    before = asyncio.get_running_loop().time()
    async with asyncio.timeout(PROMPT_SECONDS / 2):
        debugger.set_trace()
        await asyncio.sleep(0)
    assert asyncio.get_running_loop().time() - before < PROMPT_SECONDS


async def test_the_clock_goes_on_after_any_number_of_prompts() -> None:
    before = asyncio.get_running_loop().time()
    for _ in range(sys.getrecursionlimit()):
        Debugger(stdin=io.StringIO("continue\n"), stdout=io.StringIO(), nosigint=True).set_trace()
    assert asyncio.get_running_loop().time() > before


def test_a_prompt_outside_of_a_loop_is_an_ordinary_prompt() -> None:
    shown = io.StringIO()
    Debugger(stdin=SlowToType(), stdout=shown, nosigint=True).set_trace()
    assert "test_a_prompt_outside_of_a_loop" in shown.getvalue()
