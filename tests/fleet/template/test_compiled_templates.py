"""Versions of a template share the compiled files that are the same in both, and nothing else."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jinja2 import Environment

from fleet.template import copier_worker, rendering
from fleet.template.answers import Answers
from fleet.template.jinja_environment import CompilingOnce
from fleet.template.rendering import render

FILES = {
    "copier.yml": "_subdirectory: template\nservice_name: {type: str, default: billing}\n",
    "ownership/service-owned.yml": "- /src\n",
    "template/{{ _copier_conf.answers_file }}.jinja": "{{ _copier_answers | to_nice_yaml }}",
    "template/kept.txt.jinja": "{% if service_name %}\n{{ service_name }}\n{% endif %}\n",
    "template/changed.txt.jinja": "Old {{ service_name }}\n",
}
TRIMMED = f"_envops: {{trim_blocks: true}}\n{FILES['copier.yml']}"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has compiled, as if another process went on."""
    monkeypatch.setattr(copier_worker, "_ENVIRONMENTS", {})
    monkeypatch.setattr(CompilingOnce, "compiled", {})


def rendered(version: Path, **changed: str) -> dict[str, bytes | Path]:
    """Write a version of the template, and render it. `changed` maps the first word of a file's name to its text."""
    for name, text in FILES.items():
        write(version / name, changed.get(Path(name).name.partition(".")[0], text))
    return rendered_from(version)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def rendered_from(version: Path) -> dict[str, bytes | Path]:
    answers = Answers.parse(b"_commit: v1\n_src_path: /template\nservice_name: billing\n")
    return render(version, commit="v1", answers=answers).contents


@pytest.mark.parametrize("is_one_process", [True, False])
def test_each_version_is_rendered_with_its_own_settings_of_jinja(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_one_process: bool
) -> None:
    assert rendered(tmp_path / "1")["kept.txt"] == b"\nbilling\n\n"
    if not is_one_process:
        forget(monkeypatch)
    assert rendered(tmp_path / "2", copier=TRIMMED)["kept.txt"] == b"billing\n"


def test_a_template_with_other_delimiters_of_jinja_is_rendered(tmp_path: Path) -> None:
    delimiters = "_envops: {variable_start_string: '[[', variable_end_string: ']]'}"
    title = "title: {type: str, default: 'The [[ service_name ]]', when: false}"
    for name, text in {
        "copier.yml": f"{delimiters}\n{FILES['copier.yml']}{title}\n",
        "ownership/service-owned.yml": FILES["ownership/service-owned.yml"],
        "template/[[ _copier_conf.answers_file ]].jinja": "[[ _copier_answers | to_nice_yaml ]]",
        "template/[[ service_name ]]/kept.txt.jinja": "[[ title ]] has {{ braces }}\n",
    }.items():
        write(tmp_path / "1" / name, text)
    assert rendered_from(tmp_path / "1")["billing/kept.txt"] == b"The billing has {{ braces }}\n"


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are compiled from now on."""
    compile_anew, compiled = Environment.compile, list[str]()

    def record(
        environment: Environment, source: str, name: str | None = None, *rest: object, **options: object
    ) -> object:
        compiled.extend([name] if name else [])
        return compile_anew(environment, source, name, *rest, **options)  # ty: ignore

    monkeypatch.setattr(Environment, "compile", record)
    return compiled


def test_a_new_version_compiles_only_the_changed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered(tmp_path / "1")
    forget(monkeypatch)
    compiled = recorded(monkeypatch)
    assert rendered(tmp_path / "2", changed="New {{ service_name }}\n")["changed.txt"] == b"New billing\n"
    assert compiled == ["template/changed.txt.jinja"]


def test_a_render_compiles_no_file_that_the_second_process_has_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = recorded(monkeypatch)

    @contextmanager
    def before(_: Path, compile_files: Callable[[], None]) -> Generator[None]:
        """Stand in for the second process: compile all files before the render, in an environment of its own."""
        compile_files()
        assert len(compiled) == 4
        forget(monkeypatch)
        compiled.clear()
        yield

    monkeypatch.setattr(rendering, "second_compiler", before)
    write(tmp_path / "1/template/broken.txt.jinja", "{% if %}")
    assert rendered(tmp_path / "1", copier=f"_exclude: [broken.txt]\n{FILES['copier.yml']}")["kept.txt"]
    assert compiled == []
