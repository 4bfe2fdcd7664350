"""The demands of a route: scopes of its caller, or nothing for a stated reason."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.params import Security
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Router

from chassis.identity.callers import Caller, caller
from chassis.settings import SettingsError

Served = TypeVar("Served")

OWN = frozenset({"chassis.web.probes", "chassis.web.docs_page", "fastapi.applications"})
"""The modules of the routes that are open to everybody: probes, and the API document if SERVE_DOCS is true."""

SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, section 3.3


async def _known() -> Caller:  # FastAPI would call a plain function in a thread
    return caller()


class Scopes(Security):
    """See `scopes`."""

    def __call__(self, function: Served) -> Served:
        function.__dict__["demanded_scopes"] = (*getattr(function, "demanded_scopes", ()), *(self.scopes or ()))
        return function


def scopes(*names: str) -> Scopes:
    """Demand that the caller's token has all these scopes.

    `@scopes("invoices:write")` above a function is for this route. For all routes of a router:
    `APIRouter(…, dependencies=[scopes("invoices:read")])`.
    """
    if not texts_of("scopes(…)", names):
        raise ValueError("scopes(): name at least one scope, such as invoices:read")
    return Scopes(_known, scopes=names)


def texts_of(parameter: str, given: Iterable[Any]) -> tuple[str, ...]:
    """Return the texts as a tuple. Raises ValueError for other values, and for a single text instead of several."""
    texts = () if isinstance(given, str) else tuple(given)
    if isinstance(given, str) or not all(isinstance(each, str) for each in texts):
        raise ValueError(f'{parameter} takes texts, as in ["invoices:read"], and not {given!r}')
    return texts


def public(reason: str) -> Callable[[Served], Served]:
    """Let everybody call a route, and say why: `@public("the price list is on our website")`."""
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError("public(): give the reason why everybody may call the route")

    def mark(function: Served) -> Served:
        function.__dict__["public_reason"] = reason
        return function

    return mark


@dataclass(frozen=True, slots=True)
class Demand:
    """The demand of one route. A public route has a reason and no scopes."""

    scopes: frozenset[str]
    public: str | None = None


class RoutesUnguarded(SettingsError):
    """Some routes state nothing about their callers, or contradict themselves. The message has a line for each."""


def demands_of(app: FastAPI, everywhere: frozenset[str]) -> list[tuple[RouteContext, Demand]]:
    """Return every route of the application, except the chassis' own, with its demand. Raises RoutesUnguarded.

    `everywhere` are the scopes that each route demands, unless the route is public.
    """
    found, wrong = [], []
    for route in iter_route_contexts(app.routes):
        served = inspect.unwrap(route.endpoint or getattr(route.original_route, "app", None) or object)
        if inspect.isfunction(served) and served.__module__ in OWN:
            continue
        demand = _demand_of(route, served, everywhere)
        if isinstance(demand, Demand):
            found.append((route, demand))
        else:
            wrong.append(f"  {' '.join(sorted(route.methods or ()))} {route.path or route.original_route}: {demand}")
    if any(app.router._iter_low_priority_routes()):  # FastAPI lists these routes nowhere else
        wrong.append('  frontend(…): serves files to everybody. Use mount(path, public("…")(StaticFiles(…)))')
    if app.router.default != app.router.not_found:
        wrong.append('  router.default: serves every other path to everybody. Use mount(path, public("…")(app))')
    if wrong:
        raise RoutesUnguarded("\n".join(["Every route states who may call it:", *wrong]))
    return found


def _demand_of(route: RouteContext, served: Any, everywhere: frozenset[str]) -> Demand | str:
    """Return the demand of a route, or the sentence that names the fault of the route."""
    dependant = getattr(route, "dependant", None)
    if dependant and not route.methods:
        return "is a WebSocket, which the server does not serve. Send events in a stream instead"
    named = frozenset(_scopes_of(dependant) if dependant else ())
    decorated = frozenset(getattr(served, "demanded_scopes", ()))
    if reason := getattr(served, "public_reason", None):
        if named or decorated:
            return "is public, but demands scopes. Remove one of the two"
        return Demand(frozenset(), reason)
    if not dependant:
        return 'has no decorator of a router, so the guard checks no scopes. Use a decorator, or public("…") with the reason'
    if not (named or decorated or everywhere):
        return 'put @scopes("…") above its function, or @public("…") with the reason'
    demanded = named | decorated | everywhere
    if wrong := [name for name in sorted(demanded) if not SCOPE.fullmatch(name)]:
        return f"a scope is a word in ASCII without quotes, such as invoices:read, and not {wrong[0]!r}"
    return Demand(demanded)


def _scopes_of(dependant: Dependant) -> Iterator[str]:
    """Yield the scopes of every `scopes(…)` and `Security(…)` of a route, its routers and its parameters."""
    yield from dependant.own_oauth_scopes or ()
    for each in dependant.dependencies:
        yield from _scopes_of(each)


class _Closed(tuple[BaseRoute, ...]):
    """The routes of a router that refuses further routes."""

    def append(self, route: BaseRoute | str, **_: Any) -> None:
        name = route if isinstance(route, str) else getattr(route, "path", "a router")
        raise RoutesUnguarded(
            f"  {name}: the service runs, and no guard covers a route that is added now. "
            "Add routes before the start, as the modules of api/ do"
        )


def close(router: Router) -> None:
    """Let a router, and all routers that it includes, refuse further routes."""
    router.routes = _Closed(router.routes)  # ty: ignore[invalid-assignment]
    router.frontend = router.routes.append  # ty: ignore[missing-attribute]
    for route in router.routes:
        if included := getattr(route, "original_router", None):
            close(included)
