"""Repeated coincidences are distinguished from chance, whatever the habits of a fleet are."""

import random
from math import comb

import pytest

from fleet.boundaries.chance import Coincidence, Fleet, Series, episodes, share_below

LAST = 521
"""The number of the last working day of two years."""


def found(days: dict[str, list[int]], begin: dict[str, int] | None = None, tolerance: int = 2) -> list[Coincidence]:
    begins = begin or {}
    series = [Series(name, episodes(each, tolerance), begins.get(name, 0)) for name, each in days.items()]
    return list(Fleet(series, 0, LAST, tolerance).coincidences(set()))


def anywhere(chance: random.Random, number: int, first: int = 0, last: int = LAST) -> list[int]:
    return [chance.randint(first, last) for _ in range(number)]


def test_two_services_that_change_within_days_of_each_other_are_found_among_two_hundred() -> None:
    chance = random.Random(5)
    days = {f"s{number}": anywhere(chance, chance.randint(4, 30)) for number in range(198)}
    days["one"] = [*range(20, 500, 40)]
    days["other"] = [day + at % 3 for at, day in enumerate(days["one"])]
    [pair] = found(days)
    assert pair.names == ("one", "other")
    assert pair.pairs == tuple(zip(days["one"], days["other"], strict=True))
    assert pair.numbers == (12, 12)
    assert pair.expected < 4
    assert pair.compared == 200 * 199 / 2


@pytest.mark.parametrize("seed", range(10))
def test_chance_shows_no_pair(seed: int) -> None:
    chance = random.Random(seed)
    assert found({f"s{number}": anywhere(chance, chance.randint(4, 30)) for number in range(60)}) == []


@pytest.mark.parametrize("number", [2, 3, 60])
def test_services_of_one_age_that_were_busy_in_their_first_months_are_no_pair(number: int) -> None:
    chance = random.Random(number)
    days = {f"s{at}": [*anywhere(chance, 8, 300, 340), *anywhere(chance, 4, 341)] for at in range(number)}
    assert found(days, dict.fromkeys(days, 300)) == []


def test_services_that_are_released_on_the_days_of_the_fleet_are_no_pair() -> None:
    chance = random.Random(7)
    days = {f"s{number}": [day // 10 * 10 for day in anywhere(chance, 20)] for number in range(40)}
    assert found(days, tolerance=0) == []


def test_changes_that_go_through_all_services_make_no_pair() -> None:
    chance = random.Random(8)
    for_all = anywhere(chance, 12)
    assert found({f"s{number}": [*for_all, *anywhere(chance, 6)] for number in range(40)}) == []


def test_several_commits_for_one_change_count_once() -> None:
    week = [day for start in (100, 300, 400) for day in range(start, start + 5)]
    assert episodes(week, 2) == (100, 103, 300, 303, 400, 403)
    assert found({"one": [100, 101, 102], "other": [100, 101, 102]}) == []


def test_a_pair_whose_changes_are_mostly_apart_is_not_found() -> None:
    days = {"one": [*range(0, 520, 20)], "other": [*range(0, 200, 20), *range(210, 520, 20)]}
    assert found(days) == []


def test_a_service_that_changes_each_day_is_no_partner_of_anybody() -> None:
    assert found({"one": [*range(521)], "other": [*range(0, 520, 15)]}) == []


@pytest.mark.parametrize(("spanning", "number"), [(0, 45), (0, 10), (3, 100)])
def test_the_highest_likely_share_makes_as_few_as_seen_just_unlikely(spanning: int, number: int) -> None:
    share = share_below(spanning, number, 5e-5)
    as_few = sum(comb(number, few) * share**few * (1 - share) ** (number - few) for few in range(spanning + 1))
    assert as_few == pytest.approx(5e-5, rel=1e-3)
