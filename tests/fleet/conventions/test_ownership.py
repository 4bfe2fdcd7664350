"""Wrong owners and catalogue entries."""

import tempfile
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.service.service import Service
from tests.fleet.conventions.mutations import Broken, Mutations, append, both, each_alone, edit, texts_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]


def reviewed(service: Path) -> None:
    """Let the platform's team review from now on, with CODEOWNERS of a new service."""
    append(".copier-answers.yml", "platform_team: '@acme/platform'\n")(service)
    with tempfile.TemporaryDirectory() as folder:
        Service(service).release.render(Service(service).answers, Path(folder))
        (service / "CODEOWNERS").write_text(Path(folder, "CODEOWNERS").read_text())


def misdirected(old: str, new: str) -> Broken:
    return both(reviewed, edit("CODEOWNERS", old, new))


MUTATIONS: Mutations = {
    "nobody owns everything": (
        "owner-code-owners",
        edit("CODEOWNERS", "* @billing-team", "/src/ @billing-team"),
        "no rule covers all paths",
    ),
    "a path without an owner": (
        "owner-code-owners",
        edit("CODEOWNERS", "* @billing-team", "* @billing-team\n/docs/"),
        "/docs/ has no owner",
    ),
    "an owner that is none": (
        "owner-code-owners",
        edit("CODEOWNERS", "* @billing-team", "* @billing-team billing"),
        "billing is not a @user",
    ),
    "a file that GitHub prefers": (
        "owner-code-owners",
        append(".github/CODEOWNERS", "/src/ @somebody\n"),
        "GitHub reads this file",
    ),
    "everything is another team's": (
        "owner-code-owners",
        edit("CODEOWNERS", "* @billing-team", "* @acme/payments"),
        "@acme/payments owns all paths, and the owner in the answers is billing-team",
    ),
    "the platform's paths are the team's to review": (
        "owner-reviewers",
        misdirected("* @acme/platform", "* @billing-team"),
        "is the platform's, and platform is not its only reviewer",
    ),
    "the team's paths wait for the platform": (
        "owner-reviewers",
        misdirected("/src/ @billing-team\n", ""),
        "is the team's (src/**), and billing-team does not review it",
    ),
    "another team in the catalogue": (
        "owner-catalogue-entry",
        edit("catalog-info.yaml", "  owner: group:billing-team\n", "  owner: group:payments\n"),
        "owner is group:payments, and the owner in the answers is billing-team",
    ),
    "another name in the catalogue": (
        "owner-catalogue-entry",
        edit("catalog-info.yaml", "  name: billing\n", "  name: bills\n"),
        "there is no Component billing",
    ),
    "no owner in the catalogue": (
        "owner-catalogue-entry",
        edit("catalog-info.yaml", "  owner: group:billing-team\n", ""),
        "the Component has no owner",
    ),
    "a stage of life that is none": (
        "owner-catalogue-entry",
        edit("catalog-info.yaml", "lifecycle: experimental", "lifecycle: young"),
        "lifecycle is young",
    ),
    "an API that is not provided": (
        "owner-catalogued-apis",
        edit("catalog-info.yaml", "[billing, billing-messages]", "[billing]"),
        "no API of type asyncapi",
    ),
    "an API that is not there": (
        "owner-catalogued-apis",
        edit("catalog-info.yaml", "[billing, billing-messages]", "[billing, billing-messages, bills]"),
        "the Component provides bills",
    ),
    "a catalogue that is no YAML": (
        "owner-catalogue-entry",
        edit("catalog-info.yaml", "kind: Component", "kind: [Component"),
        "catalog-info.yaml is not YAML, line",
    ),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


def test_sections_of_gitlab_and_names_with_blanks_are_read_as_the_forges_do(service: Path) -> None:
    (service / "CODEOWNERS").write_text("* @acme/billing-team # all\n/my\\ pages/ @docs\n^[Docs][2] @docs\n/docs/\n")
    assert texts_of(service, "owner-code-owners") == []
    (service / "CODEOWNERS").write_text("[Docs] @docs\n/docs/\n[More]\n/more/\n")
    assert texts_of(service, "owner-code-owners") == ["/more/ has no owner", "no rule covers all paths"]


def test_reviewers_are_resolved_as_the_forges_do(service: Path) -> None:
    reviewed(service)
    newborn = (service / "CODEOWNERS").read_text()

    def says(rules: str) -> list[str]:
        (service / "CODEOWNERS").write_text(rules)
        return texts_of(service, "owner-reviewers")

    assert says(newborn) == texts_of(service, "owner-code-owners") == []
    # A path may have one more reviewer, and a section of GitLab may add reviewers.
    assert says(f"{newborn}/docs/ @docs @acme/billing-team\n[Style]\n*.md @writers\n") == []
    # Either of two owners is enough for the Git host; /docs/* does not match deeper paths; the last matching rule counts.
    assert "the platform's" in says(newborn.replace("* @acme/platform", "* @acme/platform @billing-team"))[0]
    assert "docs/decisions/0001" in says(newborn.replace("/docs/ @", "/docs/* @"))[0]
    assert "src/**" in says(f"{newborn}*.py @acme/platform\n")[0]
    with pytest.raises(FleetError, match="an invalid pattern"):
        says(f"{newborn}/[src @billing-team\n")
    # The platform approves waivers.
    assert says(newborn.removesuffix("/conventions.yml @acme/platform\n")) == [
        "conventions.yml is the platform's, and platform is not its only reviewer"
    ]
    # The service is older than the answer, or has deleted the file: owner-code-owners reports that.
    assert len(says("* @billing-team\n")) == 1
    (service / "CODEOWNERS").unlink()
    assert texts_of(service, "owner-reviewers") == []
    assert texts_of(service, "owner-code-owners") == ["no rule covers all paths"]


def test_only_reviewers_of_the_policy_may_own_the_waivers(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (service.parent / "policy.toml").write_text(
        '[waivers]\napprovers = "ana@platform"\nreviewers = ["@acme/platform", "@acme/security"]\n'
    )
    monkeypatch.setenv("FLEET_POLICY", str(service.parent / "policy.toml"))

    def says(rules: str) -> list[str]:
        (service / "CODEOWNERS").write_text(rules)
        return texts_of(service, "owner-reviewers")

    allowed = "policy.toml lets only @acme/platform or @acme/security review waivers"
    assert says("* @billing-team\n") == [f"billing-team reviews conventions.yml, and {allowed}"]
    assert says("* @acme/platform\n/conventions.yml @acme/platform @billing-team\n") == [
        f"billing-team or platform reviews conventions.yml, and {allowed}"
    ]
    assert says("/src/ @billing-team\n") == [f"nobody reviews conventions.yml, and {allowed}"]
    assert says("* @billing-team\n/conventions.yml @acme/security @acme/platform\n") == []
    assert says("* @billing-team\n[Waivers]\n/conventions.yml @acme/security\n") == []
    # GitLab needs no approval of an optional section, nor for an excluded path. GitHub knows no sections: the last rule counts.
    team_alone = f"billing-team reviews conventions.yml, and {allowed}"
    assert says("* @billing-team\n^[Waivers]\n/conventions.yml @acme/security\n") == [team_alone]
    assert says("* @billing-team\n[Waivers] @acme/security\n/conventions.yml\n!/conventions.yml\n") == [team_alone]
    assert says("[Waivers]\n/conventions.yml @acme/security\n[Rest]\n* @billing-team\n") == [team_alone]
    append(".copier-answers.yml", "ci: gitlab\n")(service)
    assert says("[Waivers]\n/conventions.yml @acme/security\n[Rest]\n* @billing-team\n") == []


def test_a_definition_that_is_written_out_is_not_the_document(service: Path) -> None:
    edit("catalog-info.yaml", "  definition:\n    $text: ./specs/openapi.json\n", "  definition: 'openapi: 3.1.0'\n")(
        service
    )
    assert texts_of(service, "owner-catalogued-apis") == [
        "the Component provides no API of type openapi whose definition is specs/openapi.json"
    ]
