"""fleet renders the same as Copier, byte by byte."""

import os
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import FleetError
from fleet.template import copier_worker, jinja_environment
from fleet.template.answers import ANSWERS_FILE, Answers
from fleet.template.jinja_environment import CompilingOnce
from fleet.template.manifest import entry_of
from fleet.template.template import Template
from tests.fleet.services import Born, contents
from tests.support.answers import VARIANTS
from tests.support.commands import run_copier

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("variant", ["default", "many-words"])
def test_a_render_equals_the_render_of_plain_copier_answers_file_and_modes_included(
    history: Path, tmp_path: Path, variant: str
) -> None:
    run_copier("copy", "--vcs-ref", "v1.1.0", history, tmp_path / "copier", **VARIANTS[variant])
    answers = Answers.parse((tmp_path / "copier" / ANSWERS_FILE).read_bytes())
    Template(answers.source).at(answers.version).render(answers, tmp_path / "fleet")
    assert contents(tmp_path / "fleet") == contents(tmp_path / "copier")
    modes = [
        {path: os.access(tmp_path / side / path, os.X_OK) for path in contents(tmp_path / side)}
        for side in ("fleet", "copier")
    ]
    assert modes[0] == modes[1]
    assert modes[0]["ty.toml"]


def test_rendering_twice_in_one_process_gives_the_same(born: Born, tmp_path: Path) -> None:
    """The second rendering uses the templates that the first compiled."""
    answers = Answers.parse((born(**VARIANTS["every-type"]) / ANSWERS_FILE).read_bytes())
    release = Template(answers.source).at("v1.0.0")
    release.render(answers, tmp_path / "one")
    release.render(answers, tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"agregates": "X: {y: text}"}, "asks no question 'agregates'; the nearest name is 'aggregates'"),
        ({"package": "other"}, "asks no question 'package'"),
        ({"ci": "jenkins"}, "does not render with these answers"),
        ({"aggregates": "Invoice: {total: dollars}"}, "does not render with these answers"),
    ],
)
def test_a_changed_answer_that_would_be_passed_over_is_refused(
    born: Born, tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    answers = Answers.parse((born() / ANSWERS_FILE).read_bytes())
    with pytest.raises(FleetError, match=message):
        Template(answers.source).at("v1.0.0").render(answers, tmp_path / "out", data)


def test_a_render_without_files_has_the_same_manifest(born: Born, tmp_path: Path) -> None:
    answers = Answers.parse((born(**VARIANTS["every-type"]) / ANSWERS_FILE).read_bytes())
    release = Template(answers.source).at("v1.1.0")
    answers = replace(answers, text=answers.text + "# Not in the cache.\n")
    known = release.manifest(answers)
    assert release.render(answers, tmp_path / "written") == known
    written = {path: entry_of(tmp_path / "written" / path) for path in contents(tmp_path / "written")}
    assert known.platform.items() <= written.items()
    assert known.paths.keys() == written.keys() - {ANSWERS_FILE}
    assert all(written[path].mode == entry.mode for path, entry in known.team.items())
    assert known.paths["ty.toml"].mode == "100755"


@pytest.mark.parametrize("kept", [None, 0, 15, 40, 200])
def test_a_template_that_another_process_has_compiled_is_used_unless_the_file_is_damaged(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int | None
) -> None:
    """`kept` is how many bytes of each file are left."""
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    answers = Answers.parse((born() / ANSWERS_FILE).read_bytes())
    first = Template(answers.source).at("v1.0.0").render(answers, tmp_path / "one")
    files = [file for file in (tmp_path / "cache/compiled").rglob("*") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:kept])
    monkeypatch.setattr(copier_worker, "_ENVIRONMENTS", {})
    monkeypatch.setattr(CompilingOnce, "compiled", {})
    assert Template(answers.source).at("v1.0.0").render(answers, tmp_path / "other") == first
    assert contents(tmp_path / "other") == contents(tmp_path / "one")


def test_a_cache_that_is_deleted_during_a_run_is_made_again(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(copier_worker, "_ENVIRONMENTS", {})
    answers = Answers.parse((born() / ANSWERS_FILE).read_bytes())
    release = Template(answers.source).at("v1.0.0")
    first = release.render(answers, tmp_path / "one")
    shutil.rmtree(tmp_path / "cache")
    # Forget the compiled files, as if the next service used other files of the template.
    monkeypatch.setattr(CompilingOnce, "compiled", {})
    (environment,) = copier_worker._ENVIRONMENTS.values()
    environment.cache.clear()
    assert release.render(answers, tmp_path / "other") == first


def test_other_versions_of_jinja_and_copier_do_not_use_the_compiled_files(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {jinja_environment.CompiledFiles().directory}
    for package in ("jinja2", "copier"):
        with monkeypatch.context() as patch:
            patch.setattr(
                jinja_environment, "version", lambda name, other=package: "9.9" if name == other else version(name)
            )
            folders.add(jinja_environment.CompiledFiles().directory)
    assert len(folders) == 3
