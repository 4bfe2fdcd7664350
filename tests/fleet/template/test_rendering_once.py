"""Copier computes for each service the same results that fleet computes once for all services."""

from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
from copier._jinja_ext import SandboxedEnvironment
from copier._main import Worker
from copier._user_data import Question
from copier.errors import UserMessageError
from jinja2 import StrictUndefined

from fleet.template.copier_worker import QuestionOnce
from fleet.template.jinja_environment import CompilingOnce
from fleet.template.path_patterns import matcher

PATTERNS = (
    *(
        "",
        "# /a",
        "src/**",
        "!src/**",
        "/src/a",
        "!/src/a",
        "/src/a/b.py",
        "!/src/a/b.py",
        "*.py",
        "!*.py",
        "/src/",
        "!/a",
    ),
    *("/src/*/b.py", "a", "!/src/./a", "/.vscode", "\\!a", "/src/a.py ", "/srć", "/src//a"),
)
PATHS = [
    *(
        "src",
        "src/a",
        "src/a/b.py",
        "src/a/c",
        "src/ab",
        "a",
        "a/src/a",
        "src/a.py",
        ".vscode/x",
        "!a",
        "srć/a",
        "b.py",
    ),
]


@pytest.mark.parametrize("last", PATTERNS)
def test_a_path_is_left_out_exactly_if_copier_leaves_the_path_out(last: str) -> None:
    for patterns in (one for number in range(3) for one in product(PATTERNS, repeat=number)):
        copier = Worker._path_matcher(cast(Worker, None), (*patterns, last))
        ours = matcher.__wrapped__((*patterns, last))
        for path in map(Path, PATHS):
            assert bool(ours(path)) == bool(copier(path)), (patterns, last, path)


EXTENSIONS = ["copier._jinja_ext.YieldExtension"]
OURS = CompilingOnce(undefined=StrictUndefined, extensions=EXTENSIONS)
THEIRS = SandboxedEnvironment(undefined=StrictUndefined, extensions=EXTENSIONS)


def rendered(kind: type[Question], environment: SandboxedEnvironment, text: str, context: dict[str, Any]) -> str:
    """The rendered text of a question, or the error."""
    question = object.__new__(kind)
    vars(question).update(context=context, jinja_env=environment)
    try:
        return question.render_value(text)
    except UserMessageError as error:
        return f"error: {error}"


@pytest.mark.parametrize("text", ["{{ a }}", "{{ a is boolean }}", "{% if a is defined %}{{ a }}{% endif %}", "plain"])
def test_a_text_of_a_question_is_rendered_for_the_answers_of_each_service(text: str) -> None:
    answers: list[dict[str, Any]] = [{"a": 1}, {"a": True}, {"a": "1"}, {"a": [1]}, {}, {"a": None}, {"a": 1, "b": 2}]
    for context in answers * 2:
        assert rendered(QuestionOnce, OURS, text, context) == rendered(Question, THEIRS, text, context)


@pytest.mark.parametrize(
    "text", ["{{ v.a }}", "{{ v.keys is callable }}", "{{ v.__class__ is defined }}", "{{ v.b is defined }}"]
)
def test_a_key_of_a_dictionary_is_read_as_in_the_sandbox_of_copier(text: str) -> None:
    context = {"v": {"a": 1, "keys": 2, "__class__": 3}}
    assert rendered(QuestionOnce, OURS, text, context) == rendered(Question, THEIRS, text, context)
