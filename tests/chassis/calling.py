"""A neighbour that a function answers for, and its client."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from chassis.neighbours import NeighbourSettings

Handler = Callable[[httpx2.Request], httpx2.Response | Awaitable[httpx2.Response]]


class Neighbour:
    """A neighbour that gives its answers in turn, and the last answer from then on. It remembers its requests."""

    def __init__(self, *answers: httpx2.Response | Exception | int | float) -> None:
        self._answers = list(answers)
        self.requests: list[httpx2.Request] = []

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(httpx2.Request(request.method, request.url, headers=request.headers))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            answer = 200
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer) if isinstance(answer, int) else answer

    @property
    def calls(self) -> int:
        """The number of requests that have arrived."""
        return len(self.requests)


@asynccontextmanager
async def calling(handler: Handler | httpx2.AsyncBaseTransport, **options: Any) -> AsyncGenerator[httpx2.AsyncClient]:
    """Open the client of the neighbour `customers`. Options are arguments of `client_for`, and settings."""
    given = {name: options.pop(name) for name in ("timeout_seconds", "auth") if name in options}
    settings = NeighbourSettings.model_validate({"database_url": "postgresql://x/y", **options})
    transport = handler if isinstance(handler, httpx2.AsyncBaseTransport) else httpx2.MockTransport(handler)
    async with settings.client_for("customers", transport=transport, **given) as customers:
        yield customers
