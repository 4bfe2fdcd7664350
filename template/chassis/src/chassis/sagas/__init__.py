"""Sagas: work with steps, waits and compensations whose state is a row of the service's own database."""

from chassis.sagas.declared import AdvanceSagaV1, Saga, saga
from chassis.sagas.registry import Sagas, reply, sagas_in
from chassis.sagas.run import MAX_BYTES, MAX_STEPS, Abandon, Diverged, Run, TimedOut, TooLarge

__all__ = [
    "MAX_BYTES",
    "MAX_STEPS",
    "Abandon",
    "AdvanceSagaV1",
    "Diverged",
    "Run",
    "Saga",
    "Sagas",
    "TimedOut",
    "TooLarge",
    "reply",
    "saga",
    "sagas_in",
]
