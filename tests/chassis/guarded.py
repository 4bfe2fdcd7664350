"""Routes of each kind behind the guard, in an application without a database."""

import dataclasses
from typing import Annotated, Any, cast

import httpx2
from chassis.application import application
from chassis.database.unit_of_work import NoOutbox, UnitOfWork
from chassis.identity import Caller, Oidc, OidcSettings, caller, public, scopes
from chassis.telemetry.setup import Telemetry
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from tests.chassis.issuing import AUDIENCE, ISSUER, Issuer
from tests.chassis.tiny.main import SERVICE

URL = "postgresql://localhost/unused"
SETTINGS = {"database_url": URL, "oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "log_format": "console"}

router = APIRouter(prefix="/v1")
calls: list[str] = []


class Thing(BaseModel):
    name: str


@router.get("/things")
@scopes("things:read")
async def list_things() -> list[str]:
    return [caller().subject]


@router.post("/things")
@scopes("things:read", "things:write")
async def create_thing(body: Thing) -> str:
    calls.append(body.name)
    return body.name


@router.get("/parameter")
async def by_parameter(who: Annotated[Caller, scopes("things:read")]) -> str:
    return who.subject


@router.get("/blocking")
@scopes("things:read")
def in_a_thread() -> str:
    return caller().subject


@router.get("/unit-of-work")
@scopes("things:read")
async def in_a_unit_of_work() -> str | None:
    return UnitOfWork(cast(Any, None), NoOutbox()).subject


@router.get("/prices")
@public("the price list is on our website")
async def list_prices() -> list[str]:
    return []


admin = APIRouter(prefix="/admin", dependencies=[scopes("things:admin")])


@admin.get("/things")
@scopes("things:read")
async def list_all_things() -> str:
    return caller().subject


def make(
    *routers: APIRouter,
    auth: Oidc | None = None,
    telemetry: Telemetry | None = None,
    issuer: Issuer | None = None,
    **settings: Any,
) -> FastAPI:
    """Make an application with these routers, by default all of this module. Without `issuer` it fetches keys by HTTP."""
    service = dataclasses.replace(SERVICE, routers=list(routers or (router, admin)), auth=auth or Oidc())
    app = application(service, OidcSettings.model_validate({**SETTINGS, **settings}), telemetry=telemetry)
    if issuer:
        app.state.guard._tokens = issuer.tokens()
    return app


async def send(app: FastAPI, method: str, path: str, token: bytes | None = None, **options: Any) -> httpx2.Response:
    headers = {"Authorization": b"Bearer " + token} if token else {}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:
        return await client.request(method, path, headers=options.pop("headers", headers), **options)
