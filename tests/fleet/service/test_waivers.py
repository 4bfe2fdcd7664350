"""conventions.yml: each incomplete entry is named, with its missing parts."""

from datetime import date, timedelta

import pytest

from fleet.errors import FleetError
from fleet.policy.approval import Approval
from fleet.service.waivers import TODAY, Waivers, today

WHOLE = {
    "path": "Dockerfile",
    "reason": "libvips",
    "owner": "media-team",
    "approver": "ana@platform",
    "expires": "2999-01-01",
    "content": '"0123"',
}


def written(**changes: str | None) -> bytes:
    fields = {name: value for name, value in (WHOLE | changes).items() if value is not None}
    return ("waivers:\n- " + "\n  ".join(f"{name}: {value}" for name, value in fields.items())).encode()


def test_a_whole_one_is_read() -> None:
    waivers = Waivers.parse(written())
    assert waivers.problems == ()
    assert waivers.of_path("Dockerfile") == waivers.waivers[0]
    assert waivers.of_path("Makefile") is None


def test_a_waiver_of_a_convention_needs_no_content() -> None:
    waivers = Waivers.parse(written(path=None, id="http-paths", content=None))
    assert waivers.problems == ()
    (waiver,) = waivers.waivers
    assert waiver.covers("http-paths", "specs/openapi.json")
    assert not waiver.covers("http-summaries", "specs/openapi.json")


def test_a_waiver_of_a_convention_in_a_file_is_for_that_file() -> None:
    waivers = Waivers.parse(written(id="supply-no-secrets"))
    assert waivers.problems == ()
    (waiver,) = waivers.waivers
    assert waiver.covers("supply-no-secrets", "Dockerfile")
    assert not waiver.covers("supply-no-secrets", "README.md")
    assert waivers.of_path("Dockerfile") is None


@pytest.mark.parametrize("nothing", [None, b"", b"waivers:\n", b"# later\n"])
def test_no_waivers_are_none(nothing: bytes | None) -> None:
    assert Waivers.parse(nothing) == Waivers()


def test_a_key_that_is_misspelt_is_not_passed_over() -> None:
    (problem,) = Waivers.parse(b"waiver: []\n").problems
    assert problem == "unknown key waiver: write a list under `waivers` only"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reason": None}, "waiver 1 (Dockerfile): needs a `reason`"),
        ({"owner": None}, "needs an `owner`"),
        ({"approver": '""'}, "needs an `approver`"),
        ({"approver": "media-team"}, "somebody other than `owner`"),
        ({"expires": "soon"}, "needs a date in `expires`"),
        ({"expires": None}, "needs a date in `expires`"),
        ({"content": None}, "needs `content`: what `git hash-object Dockerfile` prints"),
        ({"content": "1234"}, "in quotes"),
        ({"path": None}, "needs the `id` of a convention, a `path`, or both"),
        ({"path": "chassis/"}, "a folder cannot be waived"),
        ({"path": "[a]"}, "`path` has to be text; it is ['a']"),
        ({"id": "[a]"}, "`id` has to be text; it is ['a']"),
        ({"id": "http-paths", "path": ""}, "`path` has to be text; it is None"),
        ({"id": "http-paths", "path": None, "content": "[a]"}, "`content` has to be text; it is ['a']"),
        ({"until": "2999-01-01"}, "has the unknown key until"),
        ({"1": "2", "until": "2999-01-01"}, "has the unknown key 1, until"),
    ],
)
def test_a_waiver_without_a_part_is_refused_by_the_name_of_the_part(
    changes: dict[str, str | None], message: str
) -> None:
    waivers = Waivers.parse(written(**changes))
    assert waivers.waivers == ()
    (problem,) = waivers.problems
    assert message in problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"waivers: [\n", "not YAML, line 2"),
        (b"waivers:\n- expires: 2027-02-30\n", r"conventions\.yml is not YAML, line 2 \(2027-02-30 is no timestamp\)"),
        (b"waivers: yes", "not a list"),
        (b"- path: x", "not a list"),
    ],
)
def test_a_file_of_another_shape_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(FleetError, match=message):
        Waivers.parse(content)


DAY = date(2027, 1, 1)
ANA = Approval(approvers=("ana@platform", "leo@platform"), reviewers=("@acme/platform",))


@pytest.mark.parametrize(
    ("approval", "changes", "reason"),
    [
        (Approval(), {"approver": "boss"}, ""),
        (ANA, {}, ""),
        (ANA, {"approver": "leo@platform "}, ""),
        (
            ANA,
            {"approver": "boss"},
            "has the approver 'boss', and policy.toml lets only ana@platform, leo@platform approve",
        ),
        (
            ANA,
            {"approver": "Ana@platform"},
            "has the approver 'Ana@platform', and policy.toml lets only ana@platform, leo",
        ),
        (Approval(days=30), {"expires": "2027-01-31"}, ""),
        (
            Approval(days=30),
            {"expires": "2027-02-01"},
            "lasts until 2027-02-01, and policy.toml allows 30 days, which end on 2027-01-31",
        ),
    ],
)
def test_a_waiver_is_void_without_an_approver_of_the_policy_and_beyond_its_days(
    approval: Approval, changes: dict[str, str], reason: str
) -> None:
    entry = {"id": "http-paths", "path": None, "content": None, "expires": "2027-01-02", **changes}
    (waiver,) = Waivers.parse(written(**entry)).with_objections(approval, DAY).waivers
    void = waiver.void_because(None, DAY)
    assert void.startswith(reason)
    assert bool(void) == bool(reason)


def test_an_objection_of_the_policy_is_announced_until_its_day() -> None:
    waivers = Waivers.parse(written(id="http-paths", path=None, content=None, approver="boss"))
    approval = Approval(approvers=("ana",), reviewers=("@acme",), since=DAY)
    (before,) = waivers.with_objections(approval, DAY - timedelta(days=1)).waivers
    (after,) = waivers.with_objections(approval, DAY).waivers
    assert (before.void_because(None, DAY), before.objection_since) == ("", DAY)
    assert (after.void_because(None, DAY) != "", after.objection_since) == (True, None)


def test_no_key_of_an_entry_answers_for_the_policy() -> None:
    (problem,) = Waivers.parse(written(objection="none")).problems
    assert "has the unknown key objection" in problem


def test_the_day_can_be_set_and_a_day_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TODAY, "2027-03-01")
    assert today() == date(2027, 3, 1)
    monkeypatch.setenv(TODAY, "tomorrow")
    with pytest.raises(FleetError, match="FLEET_TODAY is 'tomorrow', and has to be a day: write it as 2027-03-01"):
        today()
