"""The fixture `sagas` plays steps, answers and time without a broker."""

from chassis.sagas.testing import sagas

__all__ = ["sagas"]
