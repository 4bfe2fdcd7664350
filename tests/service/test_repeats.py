"""POSTs that are repeated by their keys have exactly one effect each, whatever is killed meanwhile."""

import random

import pytest

from tests.service.chaos import repeats

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("calls")]


def test_each_post_has_exactly_one_effect_while_client_servers_and_database_are_killed() -> None:
    """This is the short form of `python -m tests.service.chaos.repeats`, which `make chaos` runs with 500 posts."""
    seed = random.randrange(10**6)
    outcome = repeats.run(60, kills=5, seed=seed)
    assert outcome.good, f"--posts 60 --kills 5 --seed {seed}: {outcome}"
    assert outcome.killed.total() >= 4, outcome
