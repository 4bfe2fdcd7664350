"""Settings without a default that a manifest or a page lacks."""

from pathlib import Path

import pytest

from tests.fleet.conventions.mutations import (
    Broken,
    Mutations,
    append,
    both,
    each_alone,
    edit,
    from_a_secret,
    texts_of,
    violations,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]

SETTINGS = "src/billing/settings.py"
OVERLAYS = [f"deploy/overlays/{name}/kustomization.yaml" for name in ("production", "staging")]


def field(text: str) -> Broken:
    return append(SETTINGS, f"\n    {text}\n")


IN_RUNBOOK = append("docs/runbook.md", "\n| `CUSTOMERS_URL` | none: required | where customers are |\n")
FROM_A_SECRET = from_a_secret("CUSTOMERS_URL", "customers", "url")
FROM_A_SECRET_OF_ONE = from_a_secret("CUSTOMERS_URL", "customers", "url", "billing")
SET = "      - TRACE_SAMPLE_RATIO"
IN_PRODUCTION = edit(OVERLAYS[0], SET, f"      - CUSTOMERS_URL=http://customers\n{SET}")
IN_STAGING = append(OVERLAYS[1], FROM_A_SECRET)
REQUIRED = field("customers_url: HttpUrl")

MUTATIONS: Mutations = {
    "the runbook does not name it": (
        "setting-deployed",
        both(REQUIRED, both(IN_PRODUCTION, IN_STAGING)),
        "CUSTOMERS_URL has no default, and docs/runbook.md does not name it",
    ),
    "an overlay does not set it": (
        "setting-deployed",
        both(REQUIRED, both(IN_RUNBOOK, IN_STAGING)),
        "Deployment billing does not get CUSTOMERS_URL, which has no default in src/billing/settings.py",
    ),
    "the worker does not get it": (
        "setting-deployed",
        both(REQUIRED, both(IN_RUNBOOK, both(IN_STAGING, append(OVERLAYS[0], FROM_A_SECRET_OF_ONE)))),
        "Deployment billing-worker does not get CUSTOMERS_URL",
    ),
}

test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


def test_a_setting_that_every_place_knows_passes(service: Path) -> None:
    for change in (REQUIRED, IN_RUNBOOK, IN_PRODUCTION, IN_STAGING):
        change(service)
    assert violations(service) == []


REQUIRED_OR_NOT = {
    "limit: Annotated[int, Field(ge=1)]": True,
    "limit: int = Field(ge=1)": True,
    "limit: int = Field(...)": True,
    "limit: int | None": True,
    "limit: int = 3": False,
    "limit: int | None = None": False,
    "limit: int = Field(3, ge=1)": False,
    "limit: int = Field(default=3)": False,
    "limit: Annotated[list[int], Field(default_factory=list)]": False,
    "limit: ClassVar[int]": False,
}


@pytest.mark.parametrize("line", REQUIRED_OR_NOT)
def test_only_a_setting_without_a_default_has_to_be_set(service: Path, line: str) -> None:
    field(line)(service)
    assert bool(texts_of(service, "setting-deployed")) == REQUIRED_OR_NOT[line]
