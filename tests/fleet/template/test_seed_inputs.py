"""A file of the team is rendered when its content is needed, and until then a digest of its inputs stands for the content."""

from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.template.answers import Answers
from fleet.template.rendering import Rendered, render
from fleet.template.seed_inputs import MARK

FILES = {
    "copier.yml": "_subdirectory: template\nservice_name: {type: str, default: billing}\n",
    "ownership/service-owned.yml": "- /src\n",
    "macros/outer.jinja": "{% from 'macros/inner.jinja' import inner %}{% macro outer() %}{{ inner() }}{% endmacro %}",
    "macros/inner.jinja": "{% macro inner() %}inner{% endmacro %}",
    "macros/other.jinja": "",
    "template/{{ _copier_conf.answers_file }}.jinja": "{{ _copier_answers | to_nice_yaml }}",
    "template/src/a.py.jinja": '{%- from "macros/outer.jinja" import outer -%}\n{{ outer() }} of {{ service_name }}\n',
    "template/src/copied.py": "copied\n",
    "template/ruff.toml.jinja": "{{ service_name }}\n",
}
SEED = "src/a.py"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))


def rendered(folder: Path, changed: dict[str, str] | None = None, name: str = "billing") -> Rendered:
    for path, text in (FILES | (changed or {})).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    answers = Answers.parse(f"_commit: v1\n_src_path: /template\nservice_name: {name}\n".encode())
    return render(folder, commit=folder.name, answers=answers)


def test_a_file_of_the_team_is_rendered_when_a_caller_reads_the_file(tmp_path: Path) -> None:
    broken = rendered(tmp_path / "v1", {f"template/{SEED}.jinja": "{{ 1 / 0 }}"})
    assert broken.read("ruff.toml") == b"billing\n"
    assert broken.read("src/copied.py") == b"copied\n"
    with pytest.raises(FleetError, match="the template at v1 does not render with these answers: division by zero"):
        broken.read(SEED)
    whole = rendered(tmp_path / "v2")
    assert whole.manifest.team[SEED].blob.startswith(MARK)
    assert [whole.read(SEED) for _ in range(2)] == [b"inner of billing\n"] * 2


@pytest.mark.parametrize(
    "changed",
    [
        {f"template/{SEED}.jinja": "other"},
        {"macros/inner.jinja": "{% macro inner() %}other{% endmacro %}"},
        {"copier.yml": f"_envops: {{trim_blocks: true}}\n{FILES['copier.yml']}"},
        {"copier.yml": f"{FILES['copier.yml']}computed: {{type: str, default: new, when: false}}\n"},
    ],
)
def test_files_of_the_team_with_other_inputs_have_other_digests(tmp_path: Path, changed: dict[str, str]) -> None:
    digests = [rendered(tmp_path / "v1").manifest.team[SEED], rendered(tmp_path / "v2", changed).manifest.team[SEED]]
    assert digests[0] != digests[1]


@pytest.mark.parametrize("changed", [{}, {"macros/other.jinja": "other"}, {"template/ruff.toml.jinja": "other"}])
def test_files_of_the_team_with_the_same_inputs_have_the_same_digest(tmp_path: Path, changed: dict[str, str]) -> None:
    digests = [rendered(tmp_path / "v1").manifest.team[SEED], rendered(tmp_path / "v2", changed).manifest.team[SEED]]
    assert digests[0] == digests[1]


def test_services_with_other_answers_have_other_digests(tmp_path: Path) -> None:
    digests = {rendered(tmp_path / "v1", name=name).manifest.team[SEED] for name in ("billing", "orders")}
    assert len(digests) == 2


@pytest.mark.parametrize(
    "text",
    [
        "{% include 'macros/' ~ 'other.jinja' %}",
        "{% include 'macros/other.jinja' if service_name else 'macros/inner.jinja' %}",
        "{% include ['macros/other.jinja'] %}",
        "{% set name = 'macros/other.jinja' %}{%- include name %}",
        "{{ _copier_conf.vcs_ref_hash }}",
    ],
)
def test_digests_of_two_versions_differ_where_the_inputs_cannot_be_listed(tmp_path: Path, text: str) -> None:
    changed = {f"template/{SEED}.jinja": text}
    digests = [rendered(tmp_path / name, changed).manifest.team[SEED] for name in ("v1", "v2")]
    assert digests[0] != digests[1]


def test_a_file_of_the_team_that_never_stops_rendering_is_refused_when_a_caller_reads_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "1")
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    hostile = rendered(tmp_path / "v1", {f"template/{SEED}.jinja": endless})
    with pytest.raises(
        FleetError, match=f"rendering {SEED} of the template at v1 takes more than 1 seconds of computing"
    ):
        hostile.read(SEED)
