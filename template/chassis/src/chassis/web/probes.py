"""Probes for an orchestrator: alive, started, ready."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from chassis.database import Database
from chassis.database.pool import State

CHECK_TIMEOUT_SECONDS = 1.0

router = APIRouter(include_in_schema=False)


@dataclass
class Lifecycle:
    """Where the process is between start and stop. Written by the server, read by the probes."""

    started: bool = False
    draining: bool = False
    finish_by: float | None = None
    """Set when the drain has ended: the time, by the loop's clock, at which unfinished work is cancelled."""


async def _database_state(request: Request) -> State:
    database: Database = request.app.state.database
    return await database.state(timeout_seconds=CHECK_TIMEOUT_SECONDS)


def _answer(request: Request, ok: bool, **details: Any) -> JSONResponse:
    shown = details if request.app.state.settings.probe_details else {}
    content = {"status": "ok" if ok else "unavailable", **shown}
    return JSONResponse(content, 200 if ok else 503, headers={"Cache-Control": "no-store"})


@router.get("/livez")
async def livez(request: Request) -> JSONResponse:
    """The event loop turns, and no loop has ended. Never touches the database: restarting us would not repair it."""
    worker = request.app.state.worker
    return _answer(request, worker is None or not worker.failed)


@router.get("/startupz")
async def startupz(request: Request) -> JSONResponse:
    """True once the database has answered for the first time, and from then on.

    Also without migrations: a restart, which a failing startup probe causes, would not run them.
    """
    lifecycle: Lifecycle = request.app.state.lifecycle
    lifecycle.started = lifecycle.started or await _database_state(request) != State.UNREACHABLE
    return _answer(request, lifecycle.started, database="ok" if lifecycle.started else "unreachable")


@router.get("/readyz")
async def readyz(request: Request, version: str | None = None) -> JSONResponse:
    """Whether to send requests here: not draining, and the database answers and has our migrations.

    With `?version=…`: as that version.
    """
    ours = request.app.state.settings.service_version
    if version not in (None, ours):
        return _answer(request, False, server="another version")
    if request.app.state.lifecycle.draining:
        return _answer(request, False, server="draining")
    database = await _database_state(request)
    details = {"version": ours, "database": database, **_messaging(request)}
    return _answer(request, database == State.OK, **details)


def _messaging(request: Request) -> dict[str, Any]:
    """What a person should know of the messages. It decides nothing: the outbox holds what cannot be sent."""
    state = request.app.state
    told: dict[str, Any] = {}
    if state.gauges is not None:
        told = {
            "outbox": {"waiting": state.gauges.waiting, "oldest_seconds": round(state.gauges.oldest_seconds, 1)},
            "parked": state.gauges.parked,
        }
    if state.worker is not None:
        told["broker"] = "ok" if state.worker.broker.connected else "unreachable"
    return told
