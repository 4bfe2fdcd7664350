"""The HTTP process of a service as a FastAPI application."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from opentelemetry.metrics import CallbackOptions, Observation

from chassis import problems
from chassis.database import Database
from chassis.discovery import has_module
from chassis.problems import Problem, openapi_response
from chassis.service import Service
from chassis.settings import Settings
from chassis.telemetry import logs
from chassis.telemetry.setup import Telemetry, from_settings
from chassis.web import docs_page, probes
from chassis.web.limits import Limits
from chassis.web.middleware import RequestMiddleware
from chassis.web.probes import Part

log = structlog.get_logger()


def application(service: Service, settings: Settings, *, telemetry: Telemetry | None = None) -> FastAPI:
    """Assemble the service. Pool and worker start and stop with the application's lifespan.

    Raises SettingsError if this process also sends messages (RUN_WORKER) and the settings name no broker, and with
    `auth` if the settings name no issuer, or if a route does not say who may call it.
    """
    shown = "/openapi.json" if settings.serve_docs else None
    app = _assemble(service, settings, telemetry, partial(api, openapi_url=shown), work=settings.run_worker)
    if settings.serve_docs:
        app.include_router(docs_page.router)
    app.state.parts += [cover.protect(app, settings, app.state.telemetry) for cover in service.covers]
    app.add_middleware(
        _neighbourly("chassis.web.caller_limits", Limits),
        max_body_bytes=settings.max_body_bytes,
        timeout_seconds=settings.request_timeout_seconds,
        max_concurrent=settings.max_concurrent_requests,
    )
    app.add_middleware(
        RequestMiddleware,
        telemetry=app.state.telemetry,
        lifecycle=app.state.lifecycle,
        log_requests=settings.log_requests,
    )
    return app


def worker(
    service: Service, settings: Settings, *, telemetry: Telemetry | None = None, queues: Collection[str] = ()
) -> FastAPI:
    """Assemble the process that sends and consumes messages. Over HTTP it answers only probes. Raises SettingsError.

    `queues` are the queues whose jobs the process handles, by default all of them; "" is the default queue. A process without
    the default queue does no other work.

    While no message has a line in messaging/, the process waits for the release that adds one: a new service that only
    listens has its worker's Deployment from the first day.
    """

    def make(_: Service, **options: Any) -> FastAPI:
        return FastAPI(openapi_url=None, **options)

    app = _assemble(service, settings, telemetry, make, work=True, queues=queues)
    if not service.messages:
        log.warning("no_messages", remedy="add a line to OUTGOING or INCOMING of a module in messaging/")
    return app


def _assemble(
    service: Service,
    settings: Settings,
    telemetry: Telemetry | None,
    make: Callable[..., FastAPI],
    *,
    work: bool,
    queues: Collection[str] = (),
) -> FastAPI:
    messaging = _messaging() if service.messages else None
    work = work and messaging is not None
    if messaging and work:
        messaging.check(settings)
    logs.configure(format=settings.log_format, level=settings.log_level, service=service.name)
    for remedy in settings.unencrypted_urls():
        log.warning("connection_unencrypted", remedy=remedy)
    if telemetry is None:
        telemetry = from_settings(service, settings)
        telemetry.install_globally()
    timeouts = [settings.request_timeout_seconds]
    pool_size = settings.database_pool_size
    if messaging and work:
        queues = queues or ["", *service.messages.queues]
        timeouts += [settings.message_timeout_seconds, service.messages.longest_timeout(queues)]
        pool_size = max(pool_size, messaging.connections(service.messages, settings, queues))
    database = _neighbourly("chassis.deadline", Database)(
        settings.database_url,
        pool_size=pool_size,
        name=service.name,
        command_timeout_seconds=max(timeouts),
        outbox=messaging.Outbox(service.messages) if messaging else None,
        observe=telemetry.observe_statement,
        transaction_pooler=settings.database_transaction_pooler,
        versions=service.versions,
    )
    parts: list[Part] = []
    if messaging:
        parts.append(messaging.Messaging(service.messages, settings, database, telemetry, work=work, queues=queues))
    lifecycle = probes.Lifecycle()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(database)
            for part in parts:
                await stack.enter_async_context(part.run(lambda: lifecycle.finish_by))
            yield
        await asyncio.to_thread(telemetry.shutdown)

    app = make(service, lifespan=lifespan)
    app.include_router(probes.router)
    app.state.telemetry = telemetry
    app.state.database = database
    app.state.settings = settings
    app.state.lifecycle = lifecycle
    app.state.parts = parts
    _measure_pool(telemetry, database, name=service.name, size=pool_size)
    return app


def _neighbourly(module: str, base: Any) -> Any:
    """Return the class named like `base` from that module of the part `neighbours`; `base` in a service without the part."""
    return getattr(import_module(module), base.__name__) if has_module(module) else base


def _messaging():
    """Import the part that only a service with messages needs."""
    from chassis.messaging import part

    return part


def api(service: Service, **options: Any) -> FastAPI:
    """Assemble only the routes and the API document. No settings are needed, so specs/ can be written anywhere."""
    app = FastAPI(
        title=service.name,
        description=service.description,
        version=service.api_version,
        contact={"name": service.owner} if service.owner else None,
        license_info={"name": service.license.removeprefix("LicenseRef-"), "identifier": service.license},
        servers=[
            {"url": "/", "description": "The server of this document. The paths are the same in every environment."}
        ],
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        docs_url=None,  # docs_page.py serves the page: FastAPI's page would run any script that the CDN returns
        redoc_url=None,
        # FastAPI's own telemetry would double the spans of middleware.py.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        **options,
    )
    problems.install(app)
    if has_module("chassis.neighbours.failures"):
        import_module("chassis.neighbours.failures").install(app)
    for router in service.routers:
        app.include_router(router)
    document = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = {**document(), "tags": _tags(app)}
            for cover in service.covers:
                cover.describe(app, described)
            app.openapi_schema = _finish(described)
        return app.openapi_schema

    app.openapi = openapi
    return app


def _tags(app: FastAPI) -> list[dict[str, str]]:
    """List the tags of all routes. The first docstring line of the first module that uses a tag describes the tag."""
    found: dict[str, str] = {}
    for route in iter_route_contexts(app.routes):
        # WebSockets and mounted applications have no tags, and are not in the document.
        for tag in map(str, getattr(route, "tags", ()) if getattr(route, "include_in_schema", False) else ()):
            words = (getattr(inspect.getmodule(route.endpoint), "__doc__", None) or tag).strip()
            found.setdefault(tag, words.splitlines()[0])
    return [{"name": tag, "description": found[tag]} for tag in sorted(found)]


def _finish(document: dict[str, Any]) -> dict[str, Any]:
    """Add problem documents to FastAPI's document, and write whole numbers without a point (100.0)."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for field in problem["properties"].values():
        field.pop("default", None)  # the default is null, which no answer contains
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    operations = [operation for path in document.get("paths", {}).values() for operation in path.values()]
    for shown in (path["get"] for path in document.get("paths", {}).values() if "get" in path):
        if "ETag" in shown["responses"].get("200", {}).get("headers", {}):
            shown["responses"]["304"] = {"description": "Not Modified: If-None-Match names the current ETag."}
    for operation in operations:
        _add_failures(operation, components.setdefault("responses", {}))
    for kind, found in components.items():
        components[kind] = dict(sorted(found.items()))
    return _with_whole_numbers(document)


def _add_failures(operation: dict[str, Any], shared: dict[str, Any]) -> None:
    """Document the failures that the chassis answers with. `shared` holds one description for each status."""
    statuses = [413, 422, 503, *([504] if has_module("chassis.deadline") else [])]
    if "requestBody" in operation:
        statuses += [400, 408, 415]
    if any(parameter["name"] == "If-Match" for parameter in operation.get("parameters", [])):
        statuses += [412, 428]
    responses = operation["responses"]
    if responses.get("422", {}).get("description") == "Validation Error":  # FastAPI describes a body that we never send
        del responses["422"]
    for status in statuses:
        name = problems.code_of(status).title().replace("_", "")
        shared.setdefault(name, openapi_response(status))
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{name}"})
    operation["responses"] = dict(sorted(responses.items()))


def _with_whole_numbers(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _with_whole_numbers(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_with_whole_numbers(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node


def _measure_pool(telemetry: Telemetry, database: Database, *, name: str, size: int) -> None:
    pool = {"db.client.connection.pool.name": name}

    def connections(_: CallbackOptions) -> list[Observation]:
        usage = database.usage()
        return [
            Observation(usage.used, {**pool, "db.client.connection.state": "used"}),
            Observation(usage.idle, {**pool, "db.client.connection.state": "idle"}),
        ]

    counter = telemetry.meter.create_observable_up_down_counter
    counter("db.client.connection.count", callbacks=[connections], unit="{connection}")
    counter("db.client.connection.max", callbacks=[lambda _: [Observation(size, pool)]], unit="{connection}")
    counter(
        "db.client.connection.pending_requests",
        callbacks=[lambda _: [Observation(database.usage().waiting, pool)]],
        unit="{request}",
        description="The requests that wait for a connection.",
    )
