"""Owner, domain and tier of a service, from its answers and its catalogue."""

from typing import Any

import pytest

from fleet.policy.traits import Traits, find_traits

ANSWERS = {"owner": "@acme/billing", "domain": "payments"}


def component(name: str = "billing", **parts: Any) -> dict[str, Any]:
    metadata = {"name": name} | {key: parts.pop(key) for key in ("labels", "annotations") if key in parts}
    return {"kind": "Component", "metadata": metadata, "spec": parts}


@pytest.mark.parametrize(
    ("catalogue", "tier"),
    [
        ([component(tier=1)], "1"),
        ([component(labels={"acme.example/tier": "gold"})], "gold"),
        ([component(annotations={"tier": " a\n b "})], "a b"),
        ([component(tier=2, labels={"tier": "3"})], "2"),
        ([component("orders", tier=1), component(tier=3)], "3"),
        ([component("orders", tier=1)], ""),
        ([component(tier=[1])], ""),
        ([component(tier=True)], ""),
        ([component(tier=16**5000)], ""),
        ([component(tier="x" * 200)], "x" * 100),
        ([component(labels={"frontier": "x"})], ""),
        ([{"kind": "Component", "metadata": ["billing"], "spec": 1}, "text", None], ""),
        ([], ""),
    ],
)
def test_the_tier_is_that_of_the_component_of_the_service(catalogue: list[Any], tier: str) -> None:
    assert find_traits(ANSWERS, catalogue, "billing") == Traits("@acme/billing", "payments", tier)


def test_a_trait_that_the_answers_do_not_state_is_empty() -> None:
    assert find_traits({"owner": None, "domain": ["a"]}, [], "billing") == Traits()
