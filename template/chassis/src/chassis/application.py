"""The HTTP process of a service as a FastAPI application."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from opentelemetry.metrics import CallbackOptions, Observation

from chassis import health, logs, problems
from chassis.database import Database
from chassis.edge import Edge
from chassis.limits import Limits
from chassis.problems import Problem, described
from chassis.service import Service
from chassis.settings import Settings
from chassis.telemetry import Telemetry, from_settings


def application(service: Service, settings: Settings, *, telemetry: Telemetry | None = None) -> FastAPI:
    """Assemble the service. Starts nothing: the pool opens and closes with the application's lifespan."""
    logs.configure(format=settings.log_format, level=settings.log_level, service=service.name)
    if telemetry is None:
        telemetry = from_settings(service, settings)
        telemetry.install_globally()
    database = Database(
        settings.database_url,
        pool_size=settings.database_pool_size,
        name=service.name,
        command_timeout_seconds=settings.request_timeout_seconds,
        observe=telemetry.observe_query,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with database:
            yield
        await asyncio.to_thread(telemetry.shutdown)

    app = api(service, lifespan=lifespan)
    app.include_router(health.router)
    app.state.database = database
    app.state.settings = settings
    app.state.lifecycle = health.Lifecycle()
    app.add_middleware(
        Limits,
        max_body_bytes=settings.max_body_bytes,
        timeout_seconds=settings.request_timeout_seconds,
        max_concurrent=settings.max_concurrent_requests,
    )
    app.add_middleware(Edge, telemetry=telemetry, lifecycle=app.state.lifecycle, log_requests=settings.log_requests)
    _measure_pool(telemetry, database)
    return app


def api(service: Service, **options: Any) -> FastAPI:
    """The routes and the API document alone: needs no settings, so that specs are exported anywhere."""
    app = FastAPI(
        title=service.name,
        description=service.description,
        version=service.api_version,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        # Its own telemetry would double our spans (see edge.py).
        telemetry={"tracing": False, "metrics": False, "logs": False},
        **options,
    )
    problems.install(app)
    for router in service.routers:
        app.include_router(router)
    app.state.routes = _api_routes(service.routers)
    document = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems(document())
        return app.openapi_schema

    app.openapi = openapi
    return app


def _api_routes(routers: Any) -> list[APIRoute]:
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Add the failures that any operation can answer with, all of them problem documents."""
    for operations in document.get("paths", {}).values():
        for operation in operations.values():
            common = [422, 503]
            if "requestBody" in operation:
                common += [400, 413]
            if any(parameter["name"] == "if-match" for parameter in operation.get("parameters", [])):
                common += [412, 428]
            operation["responses"].pop("422", None)
            for status in common:
                code = "`version_mismatch`" if status == 412 else None
                operation["responses"].setdefault(str(status), described(status, code))
            operation["responses"] = dict(sorted(operation["responses"].items()))
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _measure_pool(telemetry: Telemetry, database: Database) -> None:
    def connections(_: CallbackOptions) -> list[Observation]:
        used, idle = database.usage()
        return [
            Observation(used, {"db.client.connection.state": "used"}),
            Observation(idle, {"db.client.connection.state": "idle"}),
        ]

    telemetry.meter.create_observable_up_down_counter(
        "db.client.connection.count", callbacks=[connections], unit="{connection}"
    )
