"""Every convention has a name and an explanation, is broken by a test, and is kept by a new service."""

import re
import sys
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import fleet.conventions
from fleet.conventions import conventions
from tests.fleet.conventions.mutations import append, only, violations
from tests.fleet.services import Born
from tests.support.commands import git
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]


def test_a_newborn_service_keeps_all_conventions(service: Path) -> None:
    assert violations(service, by_programs=True) == []


def test_there_are_thirty_at_least_each_with_an_id_a_reason_in_one_sentence_and_a_remedy() -> None:
    found = conventions()
    assert len(found) >= 30
    assert len({one.id for one in found}) == len(found)
    for one in found:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", one.id), one
        assert re.fullmatch(r"[A-Z][^.]*[^.\s]\.", one.reason), f"{one.id}: one sentence: {one.reason}"
        assert one.remedy, one


def test_each_has_a_mutation() -> None:
    modules = [import_module(f"{__package__}.{file.stem}") for file in Path(__file__).parent.glob("test_*.py")]
    tables = [vars(module).get("MUTATIONS", {}) for module in modules]
    assert {mutation[0] for table in tables for mutation in table.values()} == {one.id for one in conventions()}


def test_an_organisation_adds_its_own_as_the_page_says(
    service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/how-to/add-a-convention.md").read_text()
    (tmp_path / "acme_conventions.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("acme", "acme_conventions", "fleet.conventions")
    monkeypatch.setattr(fleet.conventions, "entry_points", lambda group: [entry] if group == entry.group else [])
    conventions.cache_clear()
    try:
        only(service, "acme-cost-centre", "no cost centre")
    finally:
        conventions.cache_clear()
        sys.modules.pop("acme_conventions", None)


def test_a_bug_in_one_is_its_finding_and_the_others_have_their_say(
    service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(_self: object, _service: object) -> list[object]:
        raise ValueError("unexpected")

    monkeypatch.setattr(type(conventions()[0]), "check", buggy)
    (service / "README.md").write_text("Billing. make dev, make check\n")
    found = {one.id: one.reason for one in violations(service)}
    assert found.keys() == {conventions()[0].id, "docs-readme"}
    assert found[conventions()[0].id].startswith("a check has a bug: tests.fleet.conventions.test_conventions, line ")


def test_an_unparsable_file_is_reported_once_and_named_by_every_check_that_needs_the_file(born: Born) -> None:
    service = born()
    path = "src/billing/main.py"
    lines = len((service / path).read_text().splitlines())
    append(path, "def (\n")(service)
    found = [one for one in violations(service, by_programs=True) if one.path == path]
    assert found[0].reason == f"cannot be judged: {path} is not Python, line {lines + 1}: invalid syntax"
    assert {one.reason for one in found[1:]} == {"waits for this file"}
    assert {"code-layers", "code-logs"} < {one.id for one in found}
    assert {(one.line, one.level) for one in found} == {(lines + 1, "error")}


WAIVERS: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "that counts": ("docs-readme", "2999-01-01", [("docs-readme", "waived")]),
    "that has ended": ("docs-readme", "2020-01-01", [("docs-readme", "error")]),
    "of what is kept": ("docs-runbook", "2999-01-01", [("docs-readme", "error"), ("waiver-unused", "warning")]),
    "of a finding of the map": ("map-call-cycle", "2999-01-01", [("docs-readme", "error")]),
    "of what there is not": ("docs-raedme", "2999-01-01", [("docs-readme", "error"), ("waiver-invalid", "error")]),
}


@pytest.fixture
def about_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only the conventions about pages, because the programs of other conventions take most of the time."""
    pages = tuple(one for one in conventions() if one.id.startswith("docs-"))
    monkeypatch.setattr("fleet.check.checks.conventions", lambda: pages)


@pytest.mark.usefixtures("about_pages")
@pytest.mark.parametrize(("id_", "expires", "expected"), WAIVERS.values(), ids=WAIVERS)
def test_a_waiver(service: Path, id_: str, expires: str, expected: list[tuple[str, str]]) -> None:
    (service / "README.md").write_text("Billing. make dev, make check\n")
    (service / "conventions.yml").write_text(
        f"waivers:\n- {{id: {id_}, reason: young, owner: us, approver: ana, expires: {expires}}}\n"
    )
    assert sorted((finding.id, finding.level) for finding in violations(service)) == expected


@pytest.mark.usefixtures("about_pages")
def test_a_waiver_covers_one_file_as_long_as_the_file_stays_unchanged(service: Path) -> None:
    def found() -> list[tuple[str, str, str]]:
        return [(one.id, one.path, one.level) for one in violations(service)]

    second, third = "docs/decisions/0002-second.md", "docs/decisions/0003-third.md"
    for path in (second, third):
        (service / path).write_text("# Title\n## Context\n## Decision\n")
    approved = git(service, "hash-object", second).strip()
    (service / "conventions.yml").write_text(
        f"waivers:\n- {{id: docs-decisions, path: {second}, content: '{approved}', expires: 2999-01-01, "
        "reason: young, owner: us, approver: ana}\n"
    )
    assert found() == [("docs-decisions", second, "waived"), ("docs-decisions", third, "error")]
    (service / second).write_text("# Title\n## Context\n## Decision\nOther.\n")
    assert found() == [("docs-decisions", second, "error"), ("docs-decisions", third, "error")]
