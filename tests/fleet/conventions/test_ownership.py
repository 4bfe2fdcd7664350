"""Owners and catalogue entries that are not what they should be."""

from pathlib import Path

import pytest

from tests.fleet.conventions.conftest import Mutations, append, each_alone, edit, told

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]

MUTATIONS: Mutations = {
    "nobody owns everything": (
        "owner-code-owners",
        edit("CODEOWNERS", "* @billing-team", "/src/ @billing-team"),
        "no rule owns everything",
    ),
    "a path without an owner": (
        "owner-code-owners",
        edit("CODEOWNERS", "* @billing-team", "* @billing-team\n/docs/"),
        "/docs/ has no owner",
    ),
    "an owner that is none": (
        "owner-code-owners",
        edit("CODEOWNERS", "* @billing-team", "* @billing-team billing"),
        "billing is no @user",
    ),
    "a file that GitHub prefers": (
        "owner-code-owners",
        append(".github/CODEOWNERS", "/src/ @somebody\n"),
        "GitHub reads this one",
    ),
    "everything is another team's": (
        "owner-code-owners",
        edit("CODEOWNERS", "* @billing-team", "* @acme/payments"),
        "@acme/payments owns everything, and the answers say billing-team",
    ),
    "another team in the catalogue": (
        "owner-catalogue-entry",
        edit("catalog-info.yaml", "  owner: group:billing-team\n", "  owner: group:payments\n"),
        "owner is group:payments, and the answers say billing-team",
    ),
    "another name in the catalogue": (
        "owner-catalogue-entry",
        edit("catalog-info.yaml", "  name: billing\n", "  name: bills\n"),
        "it has no Component billing",
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
        "it provides bills",
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
    assert told(service, "owner-code-owners") == []
    (service / "CODEOWNERS").write_text("[Docs] @docs\n/docs/\n[More]\n/more/\n")
    assert told(service, "owner-code-owners") == ["/more/ has no owner", "no rule owns everything"]


def test_a_definition_that_is_written_out_is_not_the_document(service: Path) -> None:
    edit("catalog-info.yaml", "  definition:\n    $text: ./specs/openapi.json\n", "  definition: 'openapi: 3.1.0'\n")(
        service
    )
    assert told(service, "owner-catalogued-apis") == ["no API of type openapi that it provides is specs/openapi.json"]
