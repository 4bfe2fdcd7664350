"""Orders that are placed by sagas are paid exactly once or refunded, whatever is killed, frozen or cut off meanwhile."""

import asyncio
import random

import pytest

from tests.service.chaos.sagas import Chaos, run
from tests.service.chaos.selling import shop_and_bank

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chaos")]

SAGAS = 30
TROUBLES = [
    ("kill", "shop"),
    ("freeze", "shop-2"),
    ("kill", "postgres"),
    ("cut", "shop-broker"),
    ("lose", "jobs"),
    ("repeat", "jobs"),
    ("die", "bank"),
    ("deploy", "shop"),
]


def test_each_charge_belongs_to_a_confirmed_order_or_has_a_refund_while_parts_are_killed() -> None:
    """This is the short form of `python -m tests.service.chaos.sagas`, which `make chaos` runs on each broker."""
    seed = random.randrange(10**6)
    with shop_and_bank("nats") as running:
        chaos = Chaos(running, sagas=SAGAS, seed=seed, longest_seconds=5)
        planned = random.Random(seed).sample(TROUBLES, len(TROUBLES))
        result = asyncio.run(run(chaos, planned, per_second=5, drain_seconds=240))
        assert result.good, f"seed {seed}, {planned}: {result}\n{running.logs()}"
