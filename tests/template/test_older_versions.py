"""A service of an older version can be updated: Copier renders the list of left-out paths with the old version's files, too."""

import re

import jinja2

from tests.support.paths import ROOT

FIRST_MACROS = {"first_examples", "without_messaging", "without_identity", "without_editor"}
"""The macros that questions/presence.jinja has in each version that a service may come from."""
FIRST_ANSWERS = {
    "_copier_operation": "update",
    "chassis_parts": ["lists"],
    "has_github": True,
    "has_gitlab": False,
    "has_republish": False,
    "package": "billing",
}
EXCLUDED = re.findall(r"^_exclude:\n((?:[ #].*\n)*)", (ROOT / "copier.yml").read_text(), re.MULTILINE)[-1]


def test_the_list_of_left_out_paths_imports_only_macros_that_each_version_has() -> None:
    names = re.findall(r"import (\w+) with context", EXCLUDED)
    assert set(names) == FIRST_MACROS


def test_the_conditions_of_left_out_paths_read_only_answers_that_each_version_has() -> None:
    own = "\n".join(line for line in EXCLUDED.splitlines() if "{% from" not in line and "{% include" not in line)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    assert "/chassis/src/chassis/call_headers.py" in environment.from_string(own).render(FIRST_ANSWERS)
