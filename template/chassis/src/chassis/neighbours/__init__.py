"""Calls to other services by one policy: deadline, repetitions with a budget, a bound on calls at once, failures with a status."""

from chassis.neighbours.failures import NeighbourTimeout, NeighbourUnavailable
from chassis.neighbours.fallback import Fallback, call
from chassis.neighbours.keys import idempotency_key
from chassis.neighbours.settings import NeighbourSettings

__all__ = ["Fallback", "NeighbourSettings", "NeighbourTimeout", "NeighbourUnavailable", "call", "idempotency_key"]
