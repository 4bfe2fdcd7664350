"""The order of fleet's folders, which pyproject.toml lists: imports point down."""

import shutil
from pathlib import Path

import pytest

from tests.support.imports import lint_imports
from tests.support.paths import ROOT

# A module, an import in it, and the module in the message.
WRONG = {
    "git imports a service": ("git/git.py", "from fleet.service import mirror", "fleet.git.git"),
    "the template imports a service": (
        "template/template.py",
        "import fleet.service.service",
        "fleet.template.template",
    ),
    "a check imports the map": ("check/lag.py", "from fleet.map import reader", "fleet.check.lag"),
    "an update imports the map": ("update/report.py", "from fleet.map import reader", "fleet.update.report"),
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
    status, said = lint_imports(tmp_path, source=tmp_path)
    assert status == 1
    assert named in said


def test_all_imports_of_fleet_point_down() -> None:
    status, said = lint_imports(ROOT, source=ROOT)
    assert status == 0, said
