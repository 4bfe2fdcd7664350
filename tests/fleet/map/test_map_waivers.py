"""Waivers of findings of the map, by the policy of the template."""

from pathlib import Path

import pytest

from fleet.check.findings import Finding, Level
from fleet.map.facts import Facts, MapWaiver
from fleet.map.model import Map, MapFinding
from fleet.map.waivers import apply_waiver
from tests.support.commands import git

POLICY = '[lag]\ndays = 90\n[waivers]\napprovers = "leo@platform"\nreviewers = "@acme/platform"\n'


def level(approver: str, template: Path) -> Level:
    """Return the level of a finding that the first of two services has waived."""
    waiver = MapWaiver("map-call-cycle", "2999-01-01", "until invoices are events", approver)
    map_ = Map([Facts("orders", waivers=(waiver,), template=str(template)), Facts("billing")])
    return apply_waiver(map_, MapFinding(("billing", "orders"), Finding("map-call-cycle", "", "", ""))).finding.level


def test_the_policy_of_the_platforms_template_names_the_approvers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    template, other = tmp_path / "template", tmp_path / "other"
    for folder in (template, other):
        folder.mkdir()
        (folder / "policy.toml").write_text(POLICY if folder == template else "[lag]\ndays = 90\n")
        git(folder, "init", "--quiet")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "Start")
        git(folder, "tag", "v1.0.0")
    # Without a trusted template, as for a map of any folders, no policy limits the approvers.
    assert level("ana@platform", template) is Level.WAIVED
    monkeypatch.setenv("FLEET_TRUSTED_TEMPLATES", str(template))
    assert level("leo@platform", template) is Level.WAIVED
    assert level("ana@platform", template) is Level.ERROR
    # A service cannot choose a template in which everybody may approve.
    assert level("ana@platform", other) is Level.ERROR
    assert "waivers of findings of the map do not count" in capsys.readouterr().err
