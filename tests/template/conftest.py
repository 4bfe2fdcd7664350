"""The questions in front of a tiny template."""

import shutil
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def questionnaire(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real questions in front of a tiny template, so that rendering takes no time."""
    folder = tmp_path_factory.mktemp("questionnaire")
    for part in ("questions", "ownership"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copy(ROOT / "copier.yml", folder)
    answers_file = "{{ _copier_conf.answers_file }}.jinja"
    files = {
        answers_file: (ROOT / "template" / answers_file).read_text(),
        "src/{{ package }}/main.py.jinja": "NAME = '{{ service_name }}'\n",
        "tests/test_main.py": "",
        "docs/runbook.md": "",
        "README.md": "# seed\n",
        "Makefile": "first:\n",
        "chassis/README.md": "first\n",
        "chassis/__pycache__/it.pyc": "",
        ".github/workflows/ci.yml": "",
        ".gitlab-ci.yml": "",
    }
    for name, text in files.items():
        path = folder / "template" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
