"""Fallback: a value in the place of the answer of a neighbour that gives none."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx2
from opentelemetry import trace

from chassis.neighbours.failures import NeighbourUnavailable

T = TypeVar("T")


@dataclass(frozen=True)
class Fallback(Generic[T]):
    """A result that did not come from the neighbour: `isinstance(result, Fallback)`."""

    value: T


F = TypeVar("F", bound=Fallback[Any])


async def call(
    client: httpx2.AsyncClient, method: str, url: str, *, fallback: F | None = None, **options: Any
) -> httpx2.Response | F:
    """Send a request. Return `fallback`, if there is one, instead of raising NeighbourUnavailable."""
    try:
        return await client.request(method, url, **options)
    except NeighbourUnavailable:
        if fallback is None:
            raise
        trace.get_current_span().set_attribute("slipway.neighbour.fallback", True)
        return fallback
