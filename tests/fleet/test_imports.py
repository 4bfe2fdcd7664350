"""The order of fleet's folders, which pyproject.toml lists: imports point down."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A module, an import in it, and the module that is named.
WRONG = {
    "git imports a service": ("git/git.py", "from fleet.service import mirror", "fleet.git.git"),
    "the template imports a service": (
        "template/template.py",
        "import fleet.service.service",
        "fleet.template.template",
    ),
    "a check imports the map": ("check/lag.py", "from fleet.map import gather", "fleet.check.lag"),
    "an update imports the map": ("update/report.py", "from fleet.map import gather", "fleet.update.report"),
    "a convention imports a check": ("conventions/http.py", "import fleet.check.drift", "fleet.conventions.http"),
    "an import inside of a function": ("errors.py", "def ask():\n    import fleet.output", "fleet.errors"),
    "a module has no place": ("helpers.py", "", "fleet.helpers"),
}


@pytest.mark.parametrize(("path", "line", "named"), WRONG.values(), ids=WRONG)
def test_lint_imports_refuses_an_import_that_points_up_and_a_module_without_a_place(
    tmp_path: Path, path: str, line: str, named: str
) -> None:
    shutil.copytree(ROOT / "fleet", tmp_path / "fleet")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "fleet" / path).open("a") as module:
        module.write(f"\n{line}\n")
    status, said = lint(tmp_path)
    assert status == 1
    assert named in said


def test_all_imports_of_fleet_point_down() -> None:
    status, said = lint(ROOT)
    assert status == 0, said


def lint(folder: Path) -> tuple[int, str]:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    ran = subprocess.run(
        [
            *(sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {program}"),
            *(str(folder / "pyproject.toml"), "--no-cache", "--no-logo"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ran.returncode, ran.stdout + ran.stderr
