"""Probes for an orchestrator: alive, started, ready."""

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from chassis.database import Database

CHECK_TIMEOUT_SECONDS = 1.0

router = APIRouter(include_in_schema=False)


@dataclass
class Lifecycle:
    """Where the process is between start and stop. Written by the server, read by the probes."""

    started: bool = False
    draining: bool = False


async def _database_answers(request: Request) -> bool:
    database: Database = request.app.state.database
    return await database.answers(timeout_seconds=CHECK_TIMEOUT_SECONDS)


def _answer(ok: bool, **checks: str) -> JSONResponse:
    return JSONResponse({"status": "ok" if ok else "unavailable", **checks}, 200 if ok else 503)


@router.get("/livez")
async def livez() -> JSONResponse:
    """The event loop turns. Never touches the database: restarting us would not repair it."""
    return _answer(True)


@router.get("/startupz")
async def startupz(request: Request) -> JSONResponse:
    """True once the database has answered for the first time, and from then on."""
    lifecycle: Lifecycle = request.app.state.lifecycle
    lifecycle.started = lifecycle.started or await _database_answers(request)
    return _answer(lifecycle.started, database="ok" if lifecycle.started else "unreachable")


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """Whether to send requests here: not draining, and the database answers."""
    if request.app.state.lifecycle.draining:
        return _answer(False, server="draining")
    reachable = await _database_answers(request)
    return _answer(reachable, database="ok" if reachable else "unreachable")
