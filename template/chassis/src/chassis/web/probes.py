"""Probes for an orchestrator: alive, started, ready."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from chassis.database import Database
from chassis.database.state import State

CHECK_TIMEOUT_SECONDS = 1.0

router = APIRouter(include_in_schema=False)


@dataclass
class Lifecycle:
    """The phase of the process between start and stop. The server writes it, and the probes read it."""

    started: bool = False
    draining: bool = False
    finish_by: float | None = None
    """Set when the drain has ended: the time, by the loop's clock, at which unfinished work is cancelled."""


class Part(Protocol):
    """A part of the process that runs in addition to the HTTP server, such as messaging."""

    @property
    def failed(self) -> bool:
        """Return whether the part has ended by itself, so that only a restart of the process helps."""
        ...

    @property
    def details(self) -> dict[str, Any]:
        """Return the details that /readyz shows. They do not decide whether the process is ready."""
        ...

    def run(self, finish_by: Callable[[], float | None]) -> AbstractAsyncContextManager[None]:
        """Return a context, inside which the part runs.

        When the context is left, the part has to end by `finish_by()`, a time of the loop's clock; None means no deadline.
        """
        ...


async def _database_state(request: Request) -> State:
    database: Database = request.app.state.database
    return await database.state(timeout_seconds=CHECK_TIMEOUT_SECONDS)


def _answer(request: Request, ok: bool, **details: Any) -> JSONResponse:
    shown = details if request.app.state.settings.probe_details else {}
    content = {"status": "ok" if ok else "unavailable", **shown}
    return JSONResponse(content, 200 if ok else 503, headers={"Cache-Control": "no-store"})


@router.get("/livez")
async def livez(request: Request) -> JSONResponse:
    """Answer 200 while every part runs. This does not depend on the database: a restart would not repair it."""
    return _answer(request, not any(part.failed for part in _parts(request)))


@router.get("/startupz")
async def startupz(request: Request) -> JSONResponse:
    """Answer 200 once the database has answered for the first time.

    Missing migrations do not matter: a failing startup probe causes a restart, which would not run them.
    """
    lifecycle: Lifecycle = request.app.state.lifecycle
    lifecycle.started = lifecycle.started or await _database_state(request) != State.UNREACHABLE
    return _answer(request, lifecycle.started, database="ok" if lifecycle.started else "unreachable")


@router.get("/readyz")
async def readyz(request: Request, version: str | None = None) -> JSONResponse:
    """Answer 200 if this process can serve requests: it does not drain, and the database has our migrations.

    With `?version=…`, answer 200 only if this process has that version.
    """
    ours = request.app.state.settings.service_version
    if version not in (None, ours):
        return _answer(request, False, server="another version")
    if request.app.state.lifecycle.draining:
        return _answer(request, False, server="draining")
    database = await _database_state(request)
    details: dict[str, Any] = {"version": ours, "database": database}
    for part in _parts(request):
        details |= part.details
    return _answer(request, database == State.OK, **details)


def _parts(request: Request) -> list[Part]:
    return request.app.state.parts
