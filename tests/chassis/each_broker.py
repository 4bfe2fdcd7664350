"""The parameters of tests that run with each broker."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import brokers

Run = Callable[[str], brokers.Broker]


def each_of(*names: str) -> list[Any]:
    """Brokers as parameters. One worker has all tests of a broker: the first of these tests starts the broker."""
    start = pytest.mark.timeout(2 * brokers.START_TIMEOUT_SECONDS)
    return [pytest.param(name, marks=[pytest.mark.xdist_group(name), start]) for name in names]
