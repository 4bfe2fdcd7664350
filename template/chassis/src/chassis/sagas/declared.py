"""The declaration of a saga, and the job that advances it."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, get_type_hints
from uuid import UUID

from chassis.messages import Contract
from chassis.sagas.run import Run

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 200
"""The longest name and the longest key, in characters."""

Function = Callable[[Run, Any], Awaitable[None]]


class AdvanceSagaV1(Contract):
    """The job that runs the next step of a saga, or that brings an answer.

    `turn` is the number of commits that the saga had: a job for an earlier turn does nothing.
    """

    saga_id: UUID
    turn: int = 0
    answer: str | None = None
    body: Any = None


@dataclass(frozen=True)
class Saga:
    """A function of sagas/. Its version grows with each change of its steps."""

    name: str
    function: Function
    version: int
    params: Any
    """The class of the second parameter of the function."""


def saga(name: str, *, version: int = 1) -> Callable[[Function], Saga]:
    """Declare a saga: `@saga("place-order")` above `async def place_order(run: Run, order: PlaceOrder) -> None`."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise ValueError(f"{name!r} cannot name a saga: write words in lower case with hyphens, as in place-order")

    def declare(function: Function) -> Saga:
        hints = get_type_hints(function, include_extras=True)
        kinds = [kind for parameter, kind in hints.items() if parameter != "return"]
        if len(kinds) != 2:
            raise ValueError(
                f"the function of the saga {name} has {len(kinds)} annotated parameters: write two, as in "
                "(run: Run, order: PlaceOrder)"
            )
        return Saga(name, function, version, kinds[1])

    return declare
