"""A new convention, from its announcement to the day on which it counts: in the CI of a service and in the report of the fleet."""

import json
import re
from pathlib import Path

import pytest

from tests.fleet.command_line import run
from tests.fleet.policy.announced import DAY, MATURITY, PHASED, fleet_of, report
from tests.fleet.services import Born, commit, waive
from tests.support.commands import git
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_convention")]

GENERATED = re.compile(r'<time id="generated".*?</time>')
BEFORE = ("2027-02-28", 0)
AFTER = (DAY, 1)


def test_a_convention_is_announced_with_its_day_and_fails_from_that_day_on(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born(version="v1.3.0", owner="@acme/shop")
    config = fleet_of(tmp_path, PHASED + MATURITY, service)
    for day, status in (BEFORE, AFTER):
        monkeypatch.setenv("FLEET_TODAY", day)
        # The release is of today, so that no other finding makes the difference.
        found = json.loads(report("status", *config, "--format", "json", status=status))
        (shown,) = found["services"]
        (finding,) = shown["conventions"]
        assert (finding["level"], finding["since"]) == (("error", "notice")[status == 0], DAY)
        assert (shown["owner"], shown["maturity"], shown["lacks"]) == ("@acme/shop", None, ["acme-cost-centre"])
        monkeypatch.setenv("FLEET_POLICY", str(tmp_path / "policy.toml"))
        checked = ("check", str(service), "--base", "HEAD")
        table, annotated = (report(*checked, "--format", form, status=status) for form in ("table", "github"))
        if status:
            assert "acme-cost-centre catalog-info.yaml:1: no cost centre. Do: write" in table
            assert annotated.startswith("::error file=catalog-info.yaml,line=1,title=acme-cost-centre::no cost centre")
        else:
            assert f"acme-cost-centre (notice, counts from {DAY}) catalog-info.yaml:1: no cost centre. Do:" in table
            assert (
                f"::notice file=catalog-info.yaml,line=1,title=acme-cost-centre::no cost centre%0ACounts from {DAY}."
                in annotated
            )
        monkeypatch.delenv("FLEET_POLICY")


def test_the_commands_of_the_page_show_the_services_that_will_fail(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/how-to/introduce-a-rule.md").read_text()
    rules = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]
    config = fleet_of(tmp_path, rules.replace("docs-runbook", "acme-cost-centre"), born(version="v1.3.0"))
    monkeypatch.setenv("FLEET_TODAY", BEFORE[0])
    commands = re.findall(r"^fleet (status.*?)(?: +#.*)?$", page, re.MULTILINE)
    *commands, on_the_page = commands
    assert (len(commands), on_the_page.split()[1]) == (2, "--page")
    shown = [report(*command.split(), *config, status=status) for status, command in enumerate(commands)]
    assert "acme-cost-centre from 2027-03-01" in shown[0]
    assert shown[1].endswith("1 service: 1 breach\n")


def test_the_reports_show_the_day_and_the_level_of_maturity(born: Born, tmp_path: Path) -> None:
    lacking, whole = born(version="v1.3.0"), born(version="v1.3.0", service_name="orders")
    with (whole / "catalog-info.yaml").open("a") as catalogue:
        catalogue.write("# cost-centre\n")
    commit(whole)
    config = fleet_of(tmp_path, PHASED + MATURITY, lacking, whole)
    table = report("status", *config, "--on", BEFORE[0])
    assert "acme-cost-centre from 2027-03-01" in table
    assert [line.split()[-1] for line in table.splitlines() if line.startswith(("service", "orders"))] == [
        *("maturity", "bronze")
    ]
    markdown = report("status", *config, "--on", BEFORE[0], "--format", "markdown")
    assert f"notice from {DAY}, acme-cost-centre" in markdown
    assert "| maturity |" in markdown
    assert report("status", *config, "--on", DAY, status=1).endswith("2 services: 1 in order, 1 breach\n")


def test_a_service_does_not_leave_a_group_by_another_answer_than_fleet_toml_states(born: Born, tmp_path: Path) -> None:
    group = '[[group]]\ndomain = "archive"\nconventions = { "*" = "off" }\n'
    config = fleet_of(tmp_path, group, born(version="v1.3.0", domain="archive"))
    assert report("status", *config).endswith("1 service: 1 in order\n")
    with (tmp_path / "fleet.toml").open("a") as listed:
        listed.write('domain = "shop"\ntier = "1"\nowner = "@acme/shop"\n')
    shown = json.loads(report("status", *config, "--format", "json", status=1))["services"][0]
    assert (shown["state"], shown["domain"], shown["tier"], shown["owner"]) == ("breach", "shop", "1", "@acme/shop")
    assert report("map", *config[:2], "--format", "json").count('"domain": "shop"') == 1


def test_a_group_without_a_service_is_a_warning(born: Born, tmp_path: Path) -> None:
    group = '[[group]]\ndomain = "shopp"\nconventions = { "*" = "off" }\n'
    config = fleet_of(tmp_path, PHASED + group, born(version="v1.3.0", domain="shop"))
    printed = run("status", *config, "--on", BEFORE[0])
    assert "has a group of services with domain shopp, and there is no such service" in printed


def test_a_policy_with_a_mistake_ends_the_report_before_any_service_is_judged(born: Born, tmp_path: Path) -> None:
    config = fleet_of(tmp_path, '[conventions]\nacme-cost-center = "off"\n', tmp_path / "gone")
    refusal = report("status", *config, status=1)
    assert refusal.startswith(
        f"{tmp_path}/policy.toml: [conventions] names the convention 'acme-cost-center', which does"
    )
    assert "did you mean acme-cost-centre?" in refusal
    assert "cannot be read" in report("status", *config, "--policy", str(tmp_path / "missing.toml"), status=1)


def test_the_policy_of_the_newest_release_counts_where_no_policy_is_chosen(
    born: Born, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "clone", "--quiet", str(history), "template")
    with (tmp_path / "template/policy.toml").open("a") as policy:
        policy.write(f'{PHASED}http-unknown-to-an-older-fleet = "off"\n')
    commit(tmp_path / "template", "Announce a convention")
    git(tmp_path / "template", "tag", "v1.4.0")
    service = born(version="v1.3.0")
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(str(history), str(tmp_path / "template")))
    commit(service)
    monkeypatch.setenv("FLEET_TEMPLATE", str(tmp_path / "template"))
    monkeypatch.setenv("FLEET_TODAY", BEFORE[0])
    # `check` accepts an unknown convention, because the CI of a service may run an older fleet. `status`, which the platform
    # runs, refuses it.
    assert f"acme-cost-centre (notice, counts from {DAY})" in report("check", str(service), "--base", "HEAD", status=0)
    (tmp_path / "fleet.toml").write_text(f'[[service]]\npath = "{service}"\n')
    found = report("status", "--config", str(tmp_path / "fleet.toml"), status=1)
    assert "policy.toml of the template's v1.4.0: [conventions] names the convention 'http-unknown" in " ".join(
        found.split()
    )


def test_without_rules_every_report_is_that_of_a_fleet_without_a_policy(born: Born, tmp_path: Path) -> None:
    service = born(version="v1.3.0")
    (service / "ruff.toml").write_text("line-length = 80\n")
    waive(service, "ruff.toml")
    commit(service)
    config = fleet_of(tmp_path, "", service)
    (tmp_path / "policy.toml").unlink()
    commands = [("status", *config, "--format", form) for form in ("table", "json", "markdown", "html")]
    commands += [("check", str(service), "--base", "HEAD", "--format", form) for form in ("table", "json", "github")]

    def reports() -> list[str]:
        """The reports, without the time at which the page was made."""
        return [GENERATED.sub("", report(*command, status=1)) for command in commands]

    without = reports()
    (tmp_path / "policy.toml").write_text("# Nothing yet.\n")
    assert reports() == without
    # Without a rule in a policy, a finding is an error from the start, and no report has a word that only a policy adds.
    assert "acme-cost-centre catalog-info.yaml:1: no cost centre. Do:" in without[4]
    words = ("maturity", "counts from", "notice", "since", "lacks")
    assert [word for text in (without[0], *without[2:3], *without[4:6]) for word in words if word in text] == []


def test_a_waiver_by_an_unknown_approver_counts_neither_in_a_check_nor_in_the_report(
    born: Born, tmp_path: Path
) -> None:
    service = born(version="v1.3.0")
    (service / "ruff.toml").write_text("line-length = 80\n")
    waive(service, "ruff.toml")  # ana@platform is the approver
    commit(service)
    for approver, counts in (("ana@platform", True), ("leo@platform", False)):
        config = fleet_of(tmp_path, f'[waivers]\napprovers = "{approver}"\nreviewers = "@acme/platform"\n', service)
        (shown,) = json.loads(report("status", *config, "--format", "json", status=1))["services"]
        found = {one["id"]: one["reason"] for one in shown["platform"]}
        checked = report(
            "check", str(service), "--drift", "--policy", config[1].replace("fleet.", "policy."), status=not counts
        )
        if counts:
            assert (found.keys(), shown["waivers"]["void"]) == ({"waived"}, 0)
        else:
            assert found == {
                "waiver-void": "the waiver of ruff.toml has the approver 'ana@platform', and policy.toml lets only "
                "leo@platform approve"
            }
            assert "waiver-void ruff.toml: the waiver of ruff.toml has the approver 'ana@platform'" in checked


def test_an_update_refuses_to_decide_about_a_waiver_by_an_unknown_approver(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born()
    (service / "ruff.toml").write_text("line-length = 80\n")
    waive(service, "ruff.toml")
    commit(service)
    (tmp_path / "policy.toml").write_text('[waivers]\napprovers = "leo"\nreviewers = "@acme/platform"\n')
    monkeypatch.setenv("FLEET_POLICY", str(tmp_path / "policy.toml"))
    refusal = report("update", str(service), "--no-finish", status=1)
    assert "cannot decide whether these waivers count" in refusal
    assert "has the approver 'ana@platform', and policy.toml lets only leo approve" in refusal


def test_an_approver_is_asked_for_from_a_day_on(born: Born, tmp_path: Path) -> None:
    service = born(version="v1.3.0")
    (service / "ruff.toml").write_text("line-length = 80\n")
    waive(service, "ruff.toml")
    policy = f'[waivers]\napprovers = "leo@platform"\nreviewers = "@acme/platform"\nfrom = {DAY}\n[conventions]\n"*" = "off"\n'
    config = fleet_of(tmp_path, policy, service)
    commit(service)
    assert "1 in order" in report("status", *config, "--on", BEFORE[0])
    markdown = report("status", *config, "--on", BEFORE[0], "--format", "markdown")
    assert f"notice from {DAY}, waiver-void: ruff.toml: the waiver of ruff.toml has the approver" in markdown
    assert "1 breach" in report("status", *config, "--on", DAY, status=1)
