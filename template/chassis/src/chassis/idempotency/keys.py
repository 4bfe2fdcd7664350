"""IdempotencyKeys: with it in the composition root, a client may safely repeat a POST that has an Idempotency-Key."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import problems
from chassis.call_headers import IDEMPOTENCY_KEY, in_scope
from chassis.database.current_database import current_database
from chassis.database.unit_of_work import current_caller
from chassis.idempotency import api_document, stored_answers
from chassis.idempotency.one_commit import AlreadyAnswered, KeyInUse, OneCommit
from chassis.idempotency.stored_answers import Answer
from chassis.settings import Settings
from chassis.telemetry.setup import Telemetry
from chassis.web.limits import replay

KEY = re.compile(rf'"({api_document.CHARACTERS}{{1,255}})"|({api_document.CHARACTERS}{{1,255}})'.encode())
RULE = f"{IDEMPOTENCY_KEY} must be 1 to 255 visible characters of ASCII without quotes and backslashes, such as a UUID"
REPLAYED = (b"idempotent-replayed", b"true")
FORGET_SECONDS = 60
_HEADER = in_scope(IDEMPOTENCY_KEY)

log = structlog.get_logger()


class IdempotencyKeys:
    """A POST with the header Idempotency-Key has its effect once: `Service(…, idempotency=IdempotencyKeys())`.

    The answer is stored in the commit of the change, for IDEMPOTENCY_RETENTION_HOURS. The same request of the same caller
    gets the same answer again. A request that changes nothing, and an answer from 500 on, are not stored.
    """

    def describe(self, app: FastAPI, api: dict[str, Any]) -> None:
        """Add the header and its answers to each POST of the API document."""
        for route in _posts(app):
            if operation := api.get("paths", {}).get(getattr(route, "path_format", None), {}).get("post"):
                api_document.describe(operation)

    def protect(self, app: FastAPI, settings: Settings, telemetry: Telemetry) -> "Keeping":
        """Let each POST of the application take a key."""
        app.state.idempotency = self
        return Keeping(app, timedelta(hours=settings.idempotency_retention_hours))


class Keeping:
    """Forget answers whose time is over. Each process of the service does this, because there may be no worker."""

    failed = False
    details: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, app: FastAPI, keep_for: timedelta) -> None:
        self._app, self._keep_for = app, keep_for
        cover(app)

    @asynccontextmanager
    async def run(self, _: Callable[[], float | None]) -> AsyncGenerator[None]:
        cover(self._app)  # a second time, because the service may have added routes since `protect`
        forgetting = asyncio.create_task(self._forget())
        try:
            yield
        finally:
            forgetting.cancel()
            with suppress(asyncio.CancelledError):
                await forgetting

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(FORGET_SECONDS)
            try:
                await stored_answers.forget(self._app.state.database, older_than=self._keep_for)
            except Exception as error:  # answers that are kept for longer do no harm, and the next attempt may succeed
                log.warning("answers_not_forgotten", exc_info=error)


def cover(app: FastAPI) -> None:
    """Let each POST take a key, once: applications share routers, so another application may have changed a route already."""
    for route in _posts(app):
        original: Any = route.original_route
        if not hasattr(original, "takes_keys"):
            # Another application may have put the route behind its guard. The caller has to be known before the key is looked up.
            inner = "unguarded" if hasattr(original, "unguarded") else "handle"
            setattr(original, inner, _taking_keys(getattr(original, inner)))
            original.takes_keys = True


def _posts(app: FastAPI) -> Iterator[RouteContext]:
    """Yield the routes with POST, but not a route that reads its body as a stream: the digest of the body is known too late."""
    for route in iter_route_contexts(app.routes):
        if "POST" in (route.methods or ()) and not getattr(route.endpoint, "streams_body", False):
            yield route


def _taking_keys(handle: Callable[..., Any]) -> ASGIApp:
    def take_key(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["method"] == "POST" and getattr(scope["app"].state, "idempotency", None):
            given = dict(scope["headers"]).get(_HEADER)  # RequestMiddleware has joined a header that was sent twice
            if given is not None:
                return _once(handle, given, scope, receive, send)
        return handle(scope, receive, send)

    return take_key


async def _once(handle: Callable[..., Any], given: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with a key: by the stored answer, or else by the route, whose changes and answer have one commit."""
    found = KEY.fullmatch(given)
    if found is None:
        await problems.document(400, code="idempotency_key_invalid", detail=RULE)(scope, receive, send)
        return
    message = await receive()  # the whole body: chassis.web.limits has read it
    key = _digest([*_caller(), (found[1] or found[2]).decode()])
    request = _digest([scope["path"], scope["query_string"].decode("latin-1")], message.get("body", b""))
    database = current_database.get()
    answer = await stored_answers.find(database, key)
    if answer is None:
        try:
            await _run(handle, OneCommit(database, key), request, scope, replay(message, receive), send)
            return
        except AlreadyAnswered as meanwhile:
            answer = meanwhile.answer
        except KeyInUse:
            headers = {"Retry-After": str(problems.RETRY_AFTER_SECONDS)}
            detail = "a request with this Idempotency-Key is still running"
            refusal = problems.document(409, code="idempotency_key_in_use", detail=detail, headers=headers)
            await refusal(scope, receive, send)
            return
    await _repeat(answer, request, scope, receive, send)


async def _run(
    handle: Callable[..., Any], database: OneCommit, request: bytes, scope: Scope, receive: Receive, send: Send
) -> None:
    start: Message | None = None
    failures: list[Exception] = []

    async def send_committed(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        if start is not None:
            whole = message["type"] == "http.response.body" and not message.get("more_body")
            kept = message.get("body", b"") if whole else None
            try:
                await database.commit(Answer(request, start["status"], start["headers"], kept))
            except Exception as error:
                failures.append(error)
                raise _NotCommitted from error
            await send(start)
            start = None
        await send(message)

    known = current_database.set(database)
    try:
        async with database:
            await handle(scope, receive, send_committed)
    except _NotCommitted:
        raise failures[0] from None
    finally:
        current_database.reset(known)


class _NotCommitted(Exception):
    """The commit has failed. The route's own error handlers cannot answer, because they take the first answer for sent."""


async def _repeat(answer: Answer, request: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    if answer.request != request:
        detail = "this Idempotency-Key was sent with another request: send a new key with a new request"
        await problems.document(422, code="idempotency_key_reused", detail=detail)(scope, receive, send)
        return
    trace.get_current_span().set_attribute("chassis.idempotency.replayed", True)
    if answer.body is None:
        detail = "the request with this Idempotency-Key has succeeded, and its answer was too large to keep"
        await problems.document(409, code="answer_not_kept", detail=detail)(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, REPLAYED]})
    await send({"type": "http.response.body", "body": answer.body})


def _caller() -> list[str | None]:
    caller = current_caller.get()
    return [caller.issuer, caller.subject, caller.client] if caller else []


def _digest(names: list[str | None], body: bytes = b"") -> bytes:
    return hashlib.sha256(json.dumps(names).encode() + b"\n" + body).digest()
