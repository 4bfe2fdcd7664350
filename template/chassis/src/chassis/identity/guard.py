"""Let a request reach a route only if its caller meets the route's demand."""

import time
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.routing import RouteContext
from opentelemetry import trace
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis import problems
from chassis.database.unit_of_work import current_caller
from chassis.identity.callers import Caller
from chassis.identity.demands import Demand, RoutesUnguarded, demands_of
from chassis.identity.tokens import Refused, Tokens
from chassis.telemetry.setup import Telemetry

LOG_SECONDS = 10
"""The least time between two lines for the same reason: anybody can send requests that are refused."""

log = structlog.get_logger()


class Refusals:
    """Count every refusal, and log the first of each reason, and then one line for many."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._counter = telemetry.meter.create_counter(
            "chassis.identity.refused", unit="{request}", description="The requests that were refused, by reason."
        )
        self._lines: dict[str, tuple[float, int]] = {}

    def add(self, refused: Refused, scope: Scope) -> None:
        self._counter.add(1, {"reason": refused.reason})
        trace.get_current_span().set_attribute("chassis.identity.refused", refused.reason)
        quiet_until, unlogged = self._lines.get(refused.reason, (0.0, 0))
        if time.monotonic() < quiet_until:
            self._lines[refused.reason] = quiet_until, unlogged + 1
            return
        self._lines[refused.reason] = time.monotonic() + LOG_SECONDS, 0
        report = log.warning if refused.status == 503 else log.info
        report("request_refused", reason=refused.reason, route=_name(scope), unlogged_before=unlogged)


def _name(scope: Scope) -> str:
    endpoint = scope.get("endpoint")
    return getattr(endpoint, "__qualname__", "") or type(endpoint).__name__


class Guard:
    """Check every request to a route before FastAPI reads the body. `cover` puts the routes behind the guard."""

    def __init__(self, tokens: Tokens, telemetry: Telemetry, everywhere: frozenset[str]) -> None:
        self._tokens, self._everywhere = tokens, everywhere
        self._refusals = Refusals(telemetry)
        self._demands: dict[int, Demand] = {}
        self.routes: list[tuple[RouteContext, Demand]] = []

    def cover(self, app: FastAPI) -> None:
        """Put all routes of the application behind the guard. Raises RoutesUnguarded."""
        self.routes = demands_of(app, self._everywhere)
        for route, demand in self.routes:
            original = route.original_route
            if self._demands.setdefault(id(original), demand) != demand:
                raise RoutesUnguarded(
                    f"  {route.path}: two includes of its router demand other scopes. Make two routers"
                )
            if route.methods and not hasattr(original, "unguarded"):
                _wrap(original)

    @property
    def scopes(self) -> frozenset[str]:
        """All scopes that any route demands."""
        return frozenset().union(*(demand.scopes for _, demand in self.routes))

    def demand_of(self, route: BaseRoute) -> Demand:
        """Return the demand of a route. Raises KeyError for a route that `cover` has not seen."""
        return self._demands[id(route)]

    async def authorize(self, scope: Scope, demanded: frozenset[str]) -> Caller:
        """Return the caller of a request whose token has all demanded scopes. Raises Refused."""
        # RequestMiddleware has joined a header that was sent twice, which makes the token malformed.
        found = dict(scope["headers"]).get(b"authorization")
        if found is None:
            raise Refused("token_missing")
        if found[:7].lower() != b"bearer ":
            raise Refused("token_malformed")
        caller = await self._tokens.caller(found[7:].strip())
        if not demanded <= caller.scopes:
            raise Refused("scope_missing", 403)
        return caller

    def refuse(self, refused: Refused, demanded: frozenset[str], scope: Scope) -> ASGIApp:
        """Make the answer to a refused request. The answer does not say what is wrong with a token."""
        self._refusals.add(refused, scope)
        if refused.status == 503:
            return problems.unavailable("the issuer's keys are unavailable", code="issuer_unavailable")
        if refused.status == 403:
            words = " ".join(sorted(demanded))
            challenge = f'Bearer error="insufficient_scope", scope="{words}"'
            detail = f"the access token needs these scopes: {words}"
            return problems.document(403, code="insufficient_scope", detail=detail, headers=_challenge(challenge))
        if refused.reason == "token_missing":
            detail = "send an access token, as in Authorization: Bearer …"
            return problems.document(401, detail=detail, headers=_challenge("Bearer"))
        detail = "the access token is invalid, has expired, or is for another service"
        return problems.document(401, detail=detail, headers=_challenge('Bearer error="invalid_token"'))


def _challenge(value: str) -> dict[str, str]:
    return {"WWW-Authenticate": value}


def _wrap(route: Any) -> None:
    """Check each request to the route first, by the guard of the application that serves the request.

    The routers of a service are modules, so several applications may serve one route, as in tests.
    """
    route.unguarded = route.handle  # chassis.idempotency replaces the handler behind the guard, too

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        # A mounted application has no guard: the error that this raises is better than an open route.
        guard: Guard = scope["app"].state.guard
        demand = guard.demand_of(route)
        if demand.public:
            await route.unguarded(scope, receive, send)
            return
        try:
            caller = await guard.authorize(scope, demand.scopes)
        except Refused as refused:
            await guard.refuse(refused, demand.scopes, scope)(scope, receive, send)
            return
        known = current_caller.set(caller)
        try:
            await route.unguarded(scope, receive, send)
        finally:
            current_caller.reset(known)

    route.handle = guarded
