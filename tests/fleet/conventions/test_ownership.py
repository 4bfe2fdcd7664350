"""Owners and catalogue entries that are not what they should be."""

from pathlib import Path

import pytest

from tests.fleet.conventions.conftest import Broken, edit, only

MUTATIONS: dict[str, tuple[str, Broken, str]] = {
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


@pytest.mark.slow
@pytest.mark.xdist_group("conventions")
@pytest.mark.parametrize(("convention", "broken", "says"), MUTATIONS.values(), ids=MUTATIONS)
def test_only_the_convention_that_is_broken_fails(service: Path, convention: str, broken: Broken, says: str) -> None:
    broken(service)
    only(service, convention, says)
