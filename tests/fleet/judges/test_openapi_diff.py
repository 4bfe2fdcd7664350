"""Breaking changes of an API: our verdict and oasdiff's, on the same changes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleet.judges.openapi_diff import find_breaking_changes
from fleet.service.openapi import Document
from tests.fleet.judges.api_changes import BREAKING, HARMLESS, STRICTER, TEXT, Change, changed, known, put
from tests.support import golang
from tests.support.needs import OASDIFF


def cases(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in table.items()])


@cases(BREAKING | STRICTER)
def test_a_change_that_breaks_callers_is_reported(case: tuple[Change, str]) -> None:
    change, expected = case
    found = [one.what for one in find_breaking_changes(Document(known()), Document(changed(change)))]
    assert [what for what in found if expected in what], found


@cases(HARMLESS)
def test_a_change_that_breaks_no_caller_passes(case: Change) -> None:
    assert find_breaking_changes(Document(known()), Document(changed(case))) == []


def test_a_breaking_change_is_reported_for_every_affected_operation() -> None:
    found = find_breaking_changes(Document(known()), Document(changed(put("Status", enum=["draft", "issued", "paid"]))))
    assert [str(one.operation) for one in found] == [
        "GET /v1/invoices",
        "POST /v1/invoices",
        "GET /v1/invoices/{invoice_id}",
    ]


def test_a_field_named_like_a_keyword_is_a_field() -> None:
    old, new = known(), known()
    old["components"]["schemas"]["Invoice"]["properties"]["default"] = TEXT
    (one, *_) = find_breaking_changes(Document(old), Document(new))
    assert "default was removed" in one.what


@pytest.mark.slow
@pytest.mark.xdist_group("delivery")
def test_oasdiff_is_of_the_same_opinion(tmp_path: Path) -> None:
    oasdiff = golang.built("oasdiff", OASDIFF)

    def refused(change: Change) -> bool:
        for name, document in (("old", known()), ("new", changed(change))):
            (tmp_path / f"{name}.json").write_text(json.dumps(document))
        command = [oasdiff, "breaking", "--fail-on", "WARN", "--flatten-params", "old.json", "new.json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 1

    changes = {name: case[0] for name, case in (BREAKING | STRICTER).items()} | HARMLESS
    found = {name for name, change in changes.items() if refused(change)}
    # for oasdiff, a renamed scheme is another scheme
    assert found == BREAKING.keys() | {"another name for a way to sign in"}
