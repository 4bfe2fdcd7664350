"""The composition root."""

from chassis.application import application
from chassis.service import Service
from chassis.settings import Settings
from fastapi import FastAPI

from tests.chassis import tiny
from tests.chassis.tiny import api, tables

SERVICE = Service(
    name="tiny",
    domain="tests",
    description="One table and a route for each promise",
    package=tiny,
    tables=tables.metadata,
    routers=[api.router],
)


def create_app(settings: Settings | None = None) -> FastAPI:
    return application(SERVICE, settings or SERVICE.settings())
