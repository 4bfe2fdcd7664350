"""Nothing is lost, done twice or out of order when parts are killed: the short form of `make chaos`."""

import random

import pytest

from tests import brokers, chaos
from tests.chaos import __main__ as chaos_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chaos")]

KILLS = 6


@pytest.mark.parametrize("broker", brokers.BROKERS)
def test_nothing_is_lost_doubled_or_disordered(broker: str) -> None:
    seed = random.randrange(10**6)
    try:
        result, logs = chaos_run.run(broker, kills=KILLS, seed=seed)
    except brokers.Missing as reason:
        pytest.skip(str(reason))
    assert result.good, f"python -m {chaos.__name__} {broker} --kills {KILLS} --seed {seed}: {result}\n{logs}"
