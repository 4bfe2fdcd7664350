"""Parse the files of a service by the rules of their formats, and refuse a file that breaks the rules with a message."""

from pathlib import Path

import pytest

from fleet.errors import Malformed
from fleet.service.files import Files
from tests.fleet.services import commit
from tests.support.commands import git


@pytest.mark.parametrize("number", ["1e999", "-1e999", "Infinity", "-Infinity", "NaN"])
def test_a_number_that_json_cannot_hold_is_refused_because_reports_in_json_would_repeat_the_number(
    tmp_path: Path, number: str
) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "uses.json").write_text(f'{{"maximum": {number}, "minimum": 1.5e3}}')
    commit(tmp_path)
    files = Files(tmp_path)
    with pytest.raises(Malformed, match=r"uses\.json is not JSON: .* is no number of JSON"):
        files.json("uses.json")
    (tmp_path / "uses.json").write_text('{"maximum": -1.5e3, "minimum": 7}')
    assert Files(tmp_path).json("uses.json") == {"maximum": -1500.0, "minimum": 7}
