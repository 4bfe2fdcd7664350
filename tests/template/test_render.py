"""The rendered template: every variant parses, is formatted, deterministic, and has the approved files."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from fleet.template.answers import Answers
from fleet.template.rendering import render as fleet_render
from tests.support.answers import EACH, LONGEST, VARIANTS
from tests.support.commands import run_copier
from tests.support.paths import ROOT
from tests.support.services import Render

APPROVED = ROOT / "tests/template/approved"
MOST_CONDITIONS = 5
EXTREME = {"service_name": "x" + "y" * 39, "aggregates": LONGEST}


def files(service: Path) -> Iterator[Path]:
    return (path for path in sorted(service.rglob("*")) if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("answers", EACH)
def test_every_file_parses(render: Render, answers: dict[str, Any]) -> None:
    kinds: set[str] = set()
    for path in files(render(**answers)):
        text = path.read_text()
        kinds.add(path.suffix)
        match path.suffix:
            case ".py":
                compile(text, path, "exec")
            case ".json":
                json.loads(text)
            case ".toml":
                tomllib.loads(text)
            case ".yaml" | ".yml":
                list(yaml.safe_load_all(text))
            case ".ini" | ".importlinter":
                ConfigParser().read_string(text)
    assert kinds >= {".py", ".json", ".toml", ".yaml", ".yml", ".ini"}


@pytest.mark.slow
@pytest.mark.parametrize("answers", [*EACH, pytest.param(EXTREME, id="longest names")])
def test_every_rendered_python_file_is_formatted_and_linted(render: Render, answers: dict[str, Any]) -> None:
    service = render(**answers)
    for command in (["format", "--diff", "--quiet"], ["check", "--output-format", "concise"]):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "."], cwd=service, capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("answers", EACH)
def test_a_newborn_service_listens_to_no_event(render: Render, answers: dict[str, Any]) -> None:
    assert [path for path in (render(**answers) / "src").rglob("*.py") if "OnEvent" in path.read_text()] == []


@pytest.mark.slow
def test_the_example_of_a_job_is_removed_by_deleting_its_files(render: Render) -> None:
    def seeds(style: str) -> dict[str, bytes]:
        service = render(service_name="billing", messaging_style=style)
        found = {str(path.relative_to(service)): path for path in files(service)}
        return {name: path.read_bytes() for name, path in found.items() if name.startswith(("src/", "tests/"))}

    kept = {name: content for name, content in seeds("events-and-queues").items() if "remind" not in name}
    assert kept == seeds("events")


@pytest.mark.parametrize(
    ("source", "version", "web"),
    [
        ("gh:acme/slipway", "v1.2.0", "https://github.com/acme/slipway/blob/v1.2.0"),
        ("gl:acme/slipway.git", "1.10", "https://gitlab.com/acme/slipway/blob/1.10"),
        ("https://git.example.com/slipway.git", "v1.2.0-3-gabcdef0", "https://git.example.com/slipway/blob/abcdef0"),
        ("git+https://bot:secret@git.example.com/slipway", "v1", "https://git.example.com/slipway/blob/v1"),
        ("git@git.example.com:acme/slipway.git", "v1", "https://git.example.com/acme/slipway/blob/v1"),
        ("ssh://git@git.example.com:2222/slipway.git", "v1", "https://git.example.com/slipway/blob/v1"),
        ("/srv/templates/slipway", "v1", ""),
        ("git+myhost:platform/slipway", "v1", ""),
    ],
)
def test_the_readme_leads_to_the_manual_of_the_version_that_the_service_has(
    template: Path, tmp_path: Path, source: str, version: str, web: str
) -> None:
    answers = f"_commit: {version}\n_src_path: {source}\nservice_name: billing\nmessaging_style: events\n"
    rendered = fleet_render(template, commit=version, answers=Answers.parse(answers.encode()))
    for page in ("README.md", "MANUAL.md"):
        rendered.write(page, tmp_path)
    assert "](MANUAL.md)" in (tmp_path / "README.md").read_text()
    manual = (tmp_path / "MANUAL.md").read_text()
    pages = re.findall(r"\]\((\S+)\)" if web else r"`(docs/\S+)`", manual)
    assert len(pages) == 6
    assert [page for page in pages if not page.startswith(web)] == []
    assert [page for page in pages if not (ROOT / page.removeprefix(web).lstrip("/")).is_file()] == []
    assert source not in manual or source == web


@pytest.mark.parametrize("answers", EACH)
def test_the_instructions_for_coding_tools_are_short_and_lead_to_files_that_are_there(
    render: Render, answers: dict[str, Any]
) -> None:
    service = render(**answers)
    lines = (service / "AGENTS.md").read_text().splitlines()
    assert len(lines) <= 40
    assert "`docs/agents.md`" in lines[-1]
    for path in re.findall(r"`((?:chassis|src|deploy|tests|docs)/[^`…]*)`", "\n".join(lines[:-1])):
        assert (service / path).exists() or path.startswith("docs/reference/"), path


@pytest.mark.parametrize("answers", EACH)
def test_nothing_of_the_template_language_or_of_this_machine_is_left(render: Render, answers: dict[str, Any]) -> None:
    service = render(**answers)
    for path in files(service):
        if path.is_relative_to(service / "chassis"):
            continue  # never rendered, and its f-strings have double braces of their own
        # GitHub writes its own expressions as ${{ … }}, Prometheus as {{ $value … }}, Grafana as {{label}}; Mako's
        # braces are single.
        text = re.sub(r"\$\{\{.*?\}\}|\{\{ \$.*?\}\}|\{\{\w+\}\}", "", path.read_text())
        assert not re.search(r"\{\{|\{%|%\}", text), path
        assert f"{ROOT}/" not in text, path
        assert not re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE), path


@pytest.mark.parametrize("answers", EACH)
def test_no_file_is_empty_without_a_reason(render: Render, answers: dict[str, Any]) -> None:
    empty = {path.name for path in files(render(**answers)) if not path.read_text().strip()}
    assert empty <= {"__init__.py", "py.typed"}


@pytest.mark.slow
def test_plain_copies_in_differently_named_folders_equal_the_renders_of_the_tests(
    render: Render, template: Path, tmp_path: Path
) -> None:
    def contents(service: Path) -> dict[str, tuple[bytes, int]]:
        return {str(path.relative_to(service)): (path.read_bytes(), path.stat().st_mode) for path in files(service)}

    for name in ("one", "other"):
        run_copier("copy", template, tmp_path / name, **VARIANTS["many-words"])
    assert contents(tmp_path / "one") == contents(tmp_path / "other") == contents(render(**VARIANTS["many-words"]))


@pytest.mark.parametrize("answers", EACH)
def test_the_rendered_tree_is_approved(render: Render, answers: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """A review shows paths that are added or removed. Approve with: APPROVE=1 make test ARGS='-k approved'."""
    import os

    service = render(**answers)
    # Every service has all pages of the skill: tests/repository/test_skill.py.
    paths = [path.relative_to(service) for path in files(service) if ".agents" not in path.parts]
    tree = "".join(f"{path}\n" for path in paths)
    approved = APPROVED / f"{request.node.callspec.id}.txt"
    if os.environ.get("APPROVE"):
        approved.parent.mkdir(exist_ok=True)
        approved.write_text(tree)
    assert tree == approved.read_text()


LIFE_CYCLE = re.compile(r"\bif aggregate\.life_cycle\b")


def tags(text: str) -> list[str]:
    return re.findall(r"\{%-?\s*(if|elif|for)\b", text)


def conditions(text: str) -> int:
    """Count the conditions of a text, in tags and inside of expressions. Text within `raw` does not count.

    One condition is free, because each layer of an aggregate has it: whether the aggregate has a life cycle.
    """
    text = LIFE_CYCLE.sub("", text)
    names = [value for _, kind, value in jinja2.Environment().lex(text) if kind == "name"]
    return sum(name in ("if", "elif") for name in names)


def templated() -> list[Path]:
    return sorted(path for path in (ROOT / "template").rglob("*.jinja") if ".venv" not in path.parts)


def test_the_chassis_has_template_language_in_its_list_of_dependencies_alone() -> None:
    assert [path.name for path in templated() if "chassis" in path.parts] == ["pyproject.toml.jinja"]


def test_only_files_with_jinja_are_named_so() -> None:
    assert [path for path in templated() if not re.search(r"\{\{|\{%", path.read_text())] == []


@pytest.mark.parametrize("path", templated(), ids=lambda path: str(path.relative_to(ROOT / "template")))
def test_a_file_keeps_its_tag_budget(path: Path) -> None:
    """Count tags: files of an aggregate may only loop over its fields and their values, and leave out its life cycle.

    Other files have two tags. None has more than five conditions, including conditions inside of expressions.
    """
    found = tags(LIFE_CYCLE.sub("", path.read_text()))
    assert conditions(path.read_text()) <= MOST_CONDITIONS
    if "yield" in str(path):
        assert set(found) <= {"for"}, found
        loops = re.findall(r"\{%-?\s*for\s+\w+\s+in\s+(.+?)\s*-?%\}", path.read_text())
        allowed = (
            r"aggregate\.(fields|columns|errors)( if .*)?|field\['values'\]|(accepted|refused)\(field\)\.split\('\\n'\)"
        )
        assert [loop for loop in loops if not re.fullmatch(allowed, loop)] == []
    else:
        assert len(found) <= 2, found


def test_a_condition_counts_in_every_place() -> None:
    expression = "{{ 'broker' if has_messaging }}{% set word = 'a' if has_queues else 'b' %}"
    tag = "{% if has_kafka %}one{% elif has_nats %}two{% else %}three{% endif %}"
    github = "{% raw %}{{ 'github' if it }}{% endraw %} if so"
    assert (conditions(expression), conditions(tag), conditions(github)) == (2, 2, 0)


def test_presence_is_decided_in_copier_yml_and_not_in_paths() -> None:
    odd = [
        path
        for path in (ROOT / "template").rglob("*{%*")
        if not re.fullmatch(r".*\{% yield aggregate from aggregate_list %\}.*\{% endyield %\}.*", path.name)
    ]
    assert odd == []


def test_a_copy_needs_no_trust() -> None:
    text = (ROOT / "copier.yml").read_text()
    assert not re.search(r"^_(tasks|jinja_extensions):", text, re.MULTILINE)
