"""The order of the tests' folders: helpers come from plain modules, and folders have the names of what they test."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in TESTS.rglob("*.py"))


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports, whether as modules or as names of their package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def fixtures_or_tests(source: str) -> list[str]:
    """The conftest modules and test modules among the imports: pytest alone imports these."""
    modules = {module for module in imported(ast.parse(source)) if module.startswith("tests.")}
    return sorted(module for module in modules if module.rpartition(".")[2].startswith(("conftest", "test_")))


@pytest.mark.parametrize(
    "source",
    [
        "from tests.conftest import git",
        "from tests import conftest",
        "import tests.fleet.conftest",
        "def late():\n    from tests.fleet.update.test_update import service",
    ],
)
def test_an_import_of_a_conftest_or_of_a_test_is_noticed(source: str) -> None:
    assert fixtures_or_tests(source)


def test_helpers_are_imported_from_plain_modules() -> None:
    found = {file: fixtures_or_tests((ROOT / file).read_text()) for file in FILES}
    assert {file: modules for file, modules in found.items() if modules} == {}, "move the helper into a module"


def folders(path: Path) -> set[str]:
    return {folder.name for folder in path.iterdir() if folder.is_dir() and folder.name != "__pycache__"}


@pytest.mark.parametrize(
    ("tests", "code", "beside"),
    [
        ("chassis", "template/chassis/src/chassis", {"tiny"}),  # a service to test with
        ("fleet", "fleet", {"hostile"}),  # repositories that attack every command
    ],
)
def test_folders_have_the_names_of_the_folders_that_they_test(tests: str, code: str, beside: set[str]) -> None:
    assert folders(TESTS / tests) - beside <= folders(ROOT / code)
