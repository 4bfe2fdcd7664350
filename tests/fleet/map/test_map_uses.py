"""`fleet map` names each caller whose committed expectations a provider no longer meets, and no other caller."""

import copy
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.check.findings import Level
from fleet.judges.openapi_diff import find_breaking_changes
from fleet.map.facts import Facts
from fleet.map.model import Map
from fleet.map.reader import read_folders
from fleet.map.uses import findings
from fleet.service.openapi import Document
from tests.fleet.judges import api_changes
from tests.fleet.judges.api_changes import changed, known
from tests.fleet.map.provider import BREAKING, HARMLESS, PATH, Node, get, offered, schema, used
from tests.support import golang
from tests.support.commands import git
from tests.support.needs import OASDIFF

# The changes on which the tests of the gate http-breaking compare with oasdiff; without a reason, a change is harmless.
ALL_CHANGES: dict[str, tuple[Callable[[Node], object], str]] = {
    **api_changes.BREAKING,
    **api_changes.STRICTER,
    **{name: (edit, "") for name, edit in api_changes.HARMLESS.items()},
}
del ALL_CHANGES["another version of OpenAPI"]  # the map compares more of such a document than the gate


def found(now: Node | None) -> list[tuple[tuple[str, ...], Level, str]]:
    callers = [Facts("billing", uses={"customers": used(), "twilio": used()}), Facts("ledger")]
    map_ = Map([*callers, Facts("customers")], offered={} if now is None else {"customers": now})
    return [(one.services, one.finding.level, one.finding.reason) for one in findings(map_)]


@pytest.mark.parametrize("change", HARMLESS)
def test_a_change_that_no_caller_notices_is_not_reported(change: str) -> None:
    HARMLESS[change](now := copy.deepcopy(offered()))
    assert found(now) == []


@pytest.mark.parametrize("change", BREAKING)
def test_a_change_that_breaks_a_caller_is_reported_with_the_caller_and_the_field(change: str) -> None:
    edit, reason = BREAKING[change]
    edit(now := copy.deepcopy(offered()))
    reported = found(now)
    assert reported
    assert {(services, level) for services, level, _ in reported} == {(("customers", "billing"), Level.ERROR)}
    assert any(reason in one for _, _, one in reported), reported
    assert all("billing uses the API (specs/uses/customers.json)" in one for _, _, one in reported)


def test_a_need_that_a_provider_may_never_have_met_is_no_order_to_the_provider_alone() -> None:
    used_alone = used()
    used_alone["paths"]["/v1/invented"] = {
        "get": {"operationId": "invented", "responses": {"204": {"description": ""}}}
    }
    map_ = Map([Facts("billing", uses={"customers": used_alone}), Facts("customers")], offered={"customers": offered()})
    (one,) = findings(map_)
    assert one.finding.reason == "billing uses the API (specs/uses/customers.json): GET /v1/invented is gone"
    assert one.finding.remedy.endswith(
        "If customers never offered that, only billing has to change: correct specs/uses/customers.json there"
    )


# Changes that the gate http-breaking reports and that a caller does not notice, with the reason.
UNNOTICED = {
    "the server moves": "a setting of the caller has the address",
    "an operation moves": "a setting of the caller has the address",
    "we call back": "a callback is another call, to the caller's own API",
    "an answer links to something": "the functions that `fleet client` writes follow no links",
    "we call others": "a webhook is another call",
    "another dialect": "the schemas are the same",
}


@pytest.mark.parametrize("change", [*ALL_CHANGES])
def test_a_caller_that_uses_all_of_an_api_is_judged_as_the_api_itself(change: str) -> None:
    edit, reason = ALL_CHANGES[change]
    map_ = Map([Facts("ledger", uses={"billing": known()}), Facts("billing")], offered={"billing": changed(edit)})
    reported = [one.finding.reason for one in findings(map_)]
    if change == "a deprecated operation goes":  # the announcement does not help a caller that still uses the operation
        assert ["is gone" in one for one in reported] == [True]
    else:
        assert any(reason in one for one in reported) is bool(reason and change not in UNNOTICED), reported
        assert bool(reported) is bool(reason and change not in UNNOTICED)


@pytest.mark.slow
@pytest.mark.xdist_group("delivery")
def test_oasdiff_is_of_the_same_opinion_about_the_part_that_a_caller_uses(tmp_path: Path) -> None:
    oasdiff = golang.built("oasdiff", OASDIFF)

    def refused(edit: Callable[[Node], object]) -> bool:
        edit(now := copy.deepcopy(offered()))
        for name, document in (("old", used()), ("new", now)):
            (tmp_path / f"{name}.json").write_text(json.dumps(document))
        command = [oasdiff, "breaking", "--fail-on", "WARN", "--flatten-params", "old.json", "new.json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 1

    changes = HARMLESS | {name: edit for name, (edit, _) in BREAKING.items()}
    # oasdiff does not compare how a list is written into a query.
    assert {name for name, edit in changes.items() if refused(edit)} == BREAKING.keys() - {
        "a parameter has another style"
    }


def in_3_0(content: Node) -> Node:
    """The document as OpenAPI 3.0, with a note that may be null and an age above zero."""
    schema(content, "Customer")["properties"] |= {
        "note": {"type": "string", "maxLength": 40, "nullable": True},
        "age": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
    }
    return {**content, "openapi": "3.0.3"}


def in_3_1(content: Node) -> Node:
    schema(content, "Customer")["properties"] |= {
        "note": {"type": ["string", "null"], "maxLength": 40},
        "age": {"type": "integer", "exclusiveMinimum": 0},
    }
    return content


@pytest.mark.parametrize("was", [in_3_0, in_3_1])
@pytest.mark.parametrize("now", [in_3_0, in_3_1])
def test_documents_of_openapi_3_0_and_3_1_are_compared(
    was: Callable[[Node], Node], now: Callable[[Node], Node]
) -> None:
    def reported(content: Node) -> list[tuple[Level, str]]:
        services = [Facts("billing", uses={"customers": was(offered())}), Facts("customers")]
        map_ = Map(services, offered={"customers": content})
        return [(one.finding.level, one.finding.reason) for one in findings(map_)]

    assert reported(now(offered())) == []
    changed = now(offered())
    schema(changed, "Customer")["properties"]["age"].pop("exclusiveMinimum")
    assert {level for level, _ in reported(changed)} == {Level.ERROR}
    assert all("age" in reason for _, reason in reported(changed))


BOGUS: dict[str, Any] = {
    "a list": [],
    "a number": 1,
    "null": None,
    "no OpenAPI": {"hello": "world"},
    "paths of another type": {"openapi": "3.1.0", "info": {}, "paths": []},
    "an operation of another type": {"openapi": "3.1.0", "paths": {"/": {"get": 1}}},
    "another version of OpenAPI": {**used(), "openapi": "4.0.0"},
}


@pytest.mark.parametrize("bogus", BOGUS)
def test_a_file_of_uses_that_is_no_api_document_is_a_finding_of_the_caller(bogus: str) -> None:
    map_ = Map(
        [Facts("billing", uses={"customers": BOGUS[bogus]}), Facts("customers")], offered={"customers": offered()}
    )
    [one] = findings(map_)
    assert (one.services, one.finding.path) == (("billing", "customers"), "specs/uses/customers.json")
    assert (one.finding.level, one.acting) == (Level.ERROR, ("billing",))


def test_uses_that_were_taken_from_another_service_are_a_finding_of_the_caller() -> None:
    other = used()
    other["info"]["title"] = "suppliers"
    other["paths"]["/v1/suppliers"] = other["paths"].pop(PATH)
    map_ = Map([Facts("billing", uses={"customers": other}), Facts("customers")], offered={"customers": offered()})
    [one] = findings(map_)
    assert (one.services, one.finding.path) == (("billing", "customers"), "specs/uses/customers.json")
    assert one.acting == ("billing",)
    assert "was taken from the API document of suppliers, and customers offers customers" in one.finding.reason


def test_a_provider_with_another_title_still_serves_its_callers() -> None:
    assert found({**offered(), "info": {"title": "Customers API", "version": "2"}}) == []


def test_another_version_of_openapi_is_a_warning_with_its_number() -> None:
    [(_, level, reason)] = found({**offered(), "openapi": "3.2.0"})
    assert level is Level.WARNING
    assert "one is of OpenAPI 3.2.0, and only 3.0 and 3.1 can be compared" in reason


def test_a_deprecated_operation_that_is_gone_breaks_its_callers() -> None:
    was = used()
    get(was)["deprecated"] = True
    (now := copy.deepcopy(offered()))["paths"].pop(PATH)
    map_ = Map([Facts("billing", uses={"customers": was}), Facts("customers")], offered={"customers": now})
    assert [one.finding.level for one in findings(map_)] == [Level.ERROR]


def test_all_uses_of_a_caller_share_one_limit_and_hide_no_other_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    monkeypatch.setattr("fleet.map.uses.find_breaking_changes", spend(find_breaking_changes))
    names = [f"customers-{number}" for number in range(20)]
    callers = [Facts("slow", uses=dict.fromkeys(names, used())), Facts("billing", uses={names[0]: used()})]
    (now := copy.deepcopy(offered()))["paths"].pop(PATH)
    begin = time.process_time()
    reported = [
        (one.services, one.finding.level)
        for one in findings(Map([*callers, *map(Facts, names)], offered=dict.fromkeys(names, now)))
    ]
    assert time.process_time() - begin < 2
    assert reported[-2:] == [(("slow",), Level.WARNING), ((names[0], "billing"), Level.ERROR)]


def spend(compare: Callable[[Document, Document], Any]) -> Callable[[Document, Document], Any]:
    def slow(old: Document, new: Document) -> Any:
        end = time.process_time() + 0.15
        while time.process_time() < end:
            pass
        return compare(old, new)

    return slow


@pytest.mark.parametrize(
    "now", [None, {"openapi": "3.1.0", "paths": []}, {"openapi": "3.1.0", "paths": {"/": {"get": 1}}}]
)
def test_a_document_that_cannot_be_compared_is_a_warning(now: Node | None) -> None:
    [(services, level, _)] = found(now)
    assert (services, level) == (("customers", "billing"), Level.WARNING)


def test_a_status_that_is_no_status_hides_no_other_finding() -> None:
    get(now := copy.deepcopy(offered()))["responses"][""] = {"description": ""}
    assert [level for _, level, _ in found(now)] == [Level.WARNING]


def test_the_uses_and_the_documents_are_read_from_the_repositories(tmp_path: Path) -> None:
    changed = offered()
    get(changed)["parameters"].pop(1)
    for name, path, content in (
        ("billing", "specs/uses/customers.json", used()),
        ("customers", "specs/openapi.json", changed),
    ):
        folder = tmp_path / name
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(json.dumps(content, indent=2))
        (folder / ".copier-answers.yml").write_text(f"_commit: v1.0.0\n_src_path: nowhere\nservice_name: {name}\n")
        git(folder, "init", "--quiet")
        git(folder, "add", "--all")
        git(folder, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "Begin")
    [one] = findings(read_folders([tmp_path / "billing", tmp_path / "customers"]))
    assert one.finding.reason.endswith(f"GET {PATH}: the query parameter fields was removed")
    line = json.dumps(changed, indent=2).splitlines()[one.finding.line - 1]
    assert '"get": {' in line
