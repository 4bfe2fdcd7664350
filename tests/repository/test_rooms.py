"""The order of the tests: helpers come from plain modules, folders are named after the tested code, names are sentences."""

import ast
import re
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


@pytest.mark.slow
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
def test_folders_have_the_names_of_the_tested_folders(tests: str, code: str, beside: set[str]) -> None:
    assert folders(TESTS / tests) - beside <= folders(ROOT / code)


PRONOUNS = re.compile(
    r"_(it|they|them|theirs|what|whatever|who|whom|whoever|those|these|ones|(the|that|another)_one|one_that)(_|$)|_one$"
)
"""Words that stand for a noun: a reader of the test's name alone would have to guess the noun."""


def names_of_tests(source: str) -> list[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, functions)]
    return [name for name in found if name.startswith("test_")]


@pytest.mark.parametrize(
    "name",
    [
        "test_it_is_issued_once",
        "test_a_layer_imports_what_is_listed_for_it",
        "test_each_service_gets_a_branch_and_one_that_fails_stops_no_other",
        "test_every_example_is_one",
    ],
)
def test_a_pronoun_in_the_name_of_a_test_is_noticed(name: str) -> None:
    assert PRONOUNS.search(name)


def test_a_number_in_the_name_of_a_test_is_no_pronoun() -> None:
    assert not PRONOUNS.search("test_two_lines_for_one_message_are_refused_in_one_sentence")


@pytest.mark.slow
def test_names_of_tests_repeat_the_noun() -> None:
    named = {file: names_of_tests((ROOT / file).read_text()) for file in FILES}
    found = [f"{file}::{name}" for file, names in named.items() for name in names if PRONOUNS.search(name)]
    assert found == [], "name the thing instead of the pronoun"
