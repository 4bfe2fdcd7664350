"""The calls of fleet's bundled tools, and the one module that fleet shares with the chassis."""

import ast
import sys
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.judges import tools
from fleet.processes.parallel import in_processes
from fleet.processes.resource_limits import limit_resources
from tests.support.paths import ROOT


def test_a_tool_gets_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hush")
    done = tools.run(["env"], cwd=tmp_path, COLUMNS="9")
    assert {line.partition("=")[0] for line in done.stdout.splitlines()} <= {
        "PATH",
        "HOME",
        "COLUMNS",
        "PWD",
        "SHLVL",
        "_",
    }
    assert "COLUMNS=9" in done.stdout


def test_a_tool_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "TOOL_SECONDS", 0.1)
    with pytest.raises(FleetError, match="sleep was given up after"):
        tools.run(["sleep", "60"], cwd=tmp_path)


def computes(seconds: float) -> int:
    """Compute in a process of its own with a shorter limit. Return how a tool ends that computes for this long."""
    code = f"import time\nwhile time.process_time() < {seconds}: pass"
    with limit_resources("the service"):
        return tools.run([sys.executable, "-c", code], cwd=Path.cwd()).returncode


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_tool_may_compute_for_longer_than_its_starting_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    assert dict(in_processes(computes, [3], jobs=1)) == {3: 0}


def test_a_tool_comes_from_the_installation_of_fleet() -> None:
    assert Path(tools.program("squawk")).parent == Path(sys.executable).parent
    with pytest.raises(FleetError, match="install fleet again"):
        tools.program("git")


SHARED = ("compatibility", "containment", "keyword_rules", "normal_form")


@pytest.mark.parametrize("name", SHARED)
def test_fleet_judges_messages_by_the_rules_of_the_chassis_where_no_chassis_is_installed(
    name: str,
) -> None:
    ours = ROOT / f"fleet/schemas/{name}.py"
    assert ours.samefile(ROOT / f"template/chassis/src/chassis/messaging/specs/{name}.py")
    for node in ast.walk(ast.parse(ours.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert {node.module or alias.name for alias in node.names} <= {*SHARED}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert {str(one).partition(".")[0] for one in names} <= sys.stdlib_module_names
