"""Sagas: work with steps, waits and compensations whose state is a row of the service's own database."""

from chassis.sagas.declared import AdvanceSagaV1, Saga, saga
from chassis.sagas.recorded_values import MAX_BYTES, Diverged, TooLarge
from chassis.sagas.registry import Sagas, reply, sagas_in
from chassis.sagas.run import MAX_STEPS, Abandon, Run, TimedOut

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
