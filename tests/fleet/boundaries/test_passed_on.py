"""Fields that a service receives and sends on, where one service has very many contracts."""

from datetime import date
from typing import Any

import pytest

from fleet.boundaries import passed_on as module
from fleet.boundaries.passed_on import passed_on
from fleet.boundaries.past import Past
from fleet.map.facts import Facts
from fleet.map.model import Map


def uses(number: int) -> dict[str, Any]:
    """Return a document with `number` operations. Only in the last, request and answer have one more field in common."""

    def body(place: int, side: str) -> dict[str, Any]:
        names = ("country", "street", "town", f"{side}{place}", *(("floor",) if place == number - 1 else ()))
        schema = {"properties": {name: {"type": "string"} for name in names}}
        return {"content": {"application/json": {"schema": schema}}}

    return {
        "paths": {
            f"/{place}": {"post": {"requestBody": body(place, "in"), "responses": {"200": body(place, "out")}}}
            for place in range(number)
        }
    }


def fields(number: int) -> str:
    map_ = Map([Facts("many", uses={"source": uses(number), "target": uses(number)}), Facts("source"), Facts("target")])
    found = passed_on(map_, {"many": Past("many", "", "1" * 40, date(2026, 1, 1))})
    return next(one.what for one in found if one.services == ("many", "source", "target")).partition(": ")[2]


def test_the_first_contracts_of_a_service_with_very_many_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fields(20) == "country, floor, street, town"
    monkeypatch.setattr(module, "MOST_BODIES", 10, raising=False)
    assert fields(20) == "country, street, town"
