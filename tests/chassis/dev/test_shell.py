"""`exit()` in `make shell` ends the prompt or the script, with its exit status."""

import ast

import pytest
from chassis.dev import shell

pytestmark = pytest.mark.timeout(20)

EXITS = {
    "exit()": None,
    "import sys; sys.exit(3)": 3,
    "import asyncio\nawait asyncio.sleep(0)\nquit('no rows')": "no rows",
}


@pytest.mark.parametrize("script", EXITS)
def test_a_script_that_exits_ends_with_its_own_status(script: str) -> None:
    with shell._loop() as loop, pytest.raises(SystemExit) as ended:
        shell._Console({}, loop).run_script(script)
    assert ended.value.code == EXITS[script]


def test_exit_at_the_prompt_ends_the_prompt_and_no_other_interrupt_does(capsys: pytest.CaptureFixture[str]) -> None:
    def run(statement: str) -> None:
        console.runcode(compile(statement, "<stdin>", "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))

    with shell._loop() as loop:
        console = shell._Console({}, loop)
        run("import asyncio")
        run("raise KeyboardInterrupt")
        run("background = asyncio.get_running_loop().call_soon(exit)")
        run("print(await asyncio.sleep(0.01, 42))")
        with pytest.raises(SystemExit):
            run("exit(4)")
    assert capsys.readouterr() == ("42\n", "KeyboardInterrupt\n")
