"""The comparison of schemas agrees with a validator: it finds a gap if a value is valid for the writer alone."""

from random import Random
from typing import Any

import pytest
from chassis.messaging.specs.compatibility import differences
from chassis.messaging.specs.containment import gaps
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fleet.judges.openapi_diff import find_breaking_changes
from fleet.map.unmet_expectations import find_unmet
from fleet.service.openapi import Document
from tests.chassis.messaging import schemas


def versions(random: Random) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    """Make two versions of a schema, and values that the first version sends and the second refuses."""
    maker = schemas.Maker(random)
    old = maker.document()
    new = maker.changed(old)
    assume(schemas.is_schema(new) and not schemas.is_endless(old) and not schemas.is_endless(new))
    values = [*(maker.value_of(old, old) for _ in range(25)), *(maker.value_of(new, new) for _ in range(10))]
    sent, valid = schemas.valid(schemas.as_written(old), values), schemas.valid(new, values)
    return old, new, [value for value, one, other in zip(values, sent, valid, strict=True) if one and not other]


def api(request: dict[str, Any], response: dict[str, Any]) -> Document:
    """Make a document with these two schemas, whose own definitions become components."""
    parts = {"Request": request, "Response": response}
    operation = {
        "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Request"}}}},
        "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Response"}}}}},
    }
    components = {}
    for name, schema in parts.items():
        components |= {name: _moved({key: schema[key] for key in schema if key != "$defs"}, name)}
        components |= {f"{name}{one}": _moved(inner, name) for one, inner in schema["$defs"].items()}
    return Document({"openapi": "3.1.0", "paths": {"/": {"post": operation}}, "components": {"schemas": components}})


def _moved(node: Any, name: str) -> Any:
    if isinstance(node, list):
        return [_moved(one, name) for one in node]
    if not isinstance(node, dict):
        return node
    found = {key: _moved(value, name) for key, value in node.items()}
    if isinstance(reference := node.get("$ref"), str):
        found["$ref"] = f"#/components/schemas/{name}{reference.rpartition('/')[2].removeprefix('#')}"
    return found


def see(old: dict[str, Any], new: dict[str, Any], lost: list[Any]) -> None:
    """Check that every gate finds that a value is lost."""
    told = f"{lost[0]} is valid by {old} and not by {new}"
    assert gaps(old, new), told
    assert find_unmet(new, old), told
    assert [one for one in differences(old, new) if not one.wider], told
    assert [one for one in differences(new, old) if not one.narrower], told
    assert find_breaking_changes(api(old, {"$defs": {}}), api(new, {"$defs": {}})), told
    # A reader of a response ignores unknown fields, so fields that a closed object refuses are no break.
    if schemas.valid(schemas.open_to_all(new), lost[:1]) == [False]:
        assert find_breaking_changes(api({"$defs": {}}, new), api({"$defs": {}}, old)), told


@pytest.mark.slow
def test_a_value_that_is_written_and_not_read_is_seen_by_every_gate() -> None:
    verdicts = {"lost": 0, "refused": 0, "compatible": 0}

    @given(random=st.randoms(use_true_random=True))
    @settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def look(random: Random) -> None:
        old, new, lost = versions(random)
        if lost:
            see(old, new, lost)
        verdicts["lost" if lost else "refused" if gaps(old, new) else "compatible"] += 1

    look()
    # Random schemas prove nothing if few of them accept different values, or if all are refused.
    assert verdicts["lost"] >= 15, verdicts
    assert verdicts["compatible"] >= 50, verdicts


@pytest.mark.slow
def test_a_comparison_comes_to_an_end_however_much_there_is_to_compare() -> None:
    names = [f"A{number}" for number in range(40)]
    fields = {name: {"$ref": f"#/$defs/{after}"} for name, after in zip(names, names[1:] + names[:1], strict=True)}
    one = {name: {"type": "object", "properties": {"x": fields[name], "y": fields[name]}} for name in names}
    other = {name: {**schema, "required": ["z"]} for name, schema in one.items()}
    assert gaps({"$ref": "#/$defs/A0", "$defs": one}, {"$ref": "#/$defs/A0", "$defs": one}) == []
    assert gaps({"$ref": "#/$defs/A0", "$defs": one}, {"$ref": "#/$defs/A0", "$defs": other})
