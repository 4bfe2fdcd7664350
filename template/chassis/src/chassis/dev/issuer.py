"""An issuer of access tokens on loopback for `make dev` and tests, whose key is made at its start and never stored."""

import argparse
import asyncio
import json
import os
import re
import urllib.request
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import urlencode
from uuid import UUID

import httpx2
from fastapi import FastAPI

from chassis.application import api
from chassis.dev import servers_file
from chassis.dev.token_server import TokenServer
from chassis.identity.api_document import SCHEME
from chassis.identity.demands import texts_of
from chassis.identity.tokens import Refused
from chassis.service import Service
from chassis.settings import SettingsError

PATH = "/development-issuer"
"""The path of the issuer's URL. `serve` refuses an issuer with this path, so no service in production trusts one."""


class Issuer(TokenServer):
    """The issuer of one service, for `make dev` and tests."""

    def __init__(self, audience: str) -> None:
        super().__init__(audience, path=PATH)

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a service that trusts this issuer."""
        return {"oidc_issuer": self.url, "oidc_audience": self.audience}

    def token(self, subject: str = "developer", *, scopes: Iterable[str] = (), **claims: Any) -> str:
        """Sign a token. `claims` replace or add claims."""
        return super().token(subject, scopes=texts_of("scopes=…", scopes), **claims)

    def client(self, app: FastAPI) -> "Client":
        """Make a client of a started application, whose caller has all scopes."""
        return Client(app, self, self.token("tester", scopes=app.state.guard.scopes))

    async def until_trusted(self, app: FastAPI) -> None:
        """Wait until a started application has fetched the keys, which takes more than one attempt on a busy machine."""
        headers = [(b"authorization", f"Bearer {self.token()}".encode())]
        async with asyncio.timeout(60):
            while True:
                try:
                    await app.state.guard.authorize({"headers": headers}, frozenset())
                except Refused as refused:
                    if refused.status == 503:
                        await asyncio.sleep(0.1)
                        continue
                return


def add_arguments(parser: argparse.ArgumentParser, _: Service) -> None:
    parser.add_argument("--scope", action="append", help="a scope of the token, repeatable; default: all of the API")
    parser.add_argument("--subject", default="developer", help="the `sub` of the token; default: developer")


def run(service: Service, _: None, options: argparse.Namespace) -> int:
    """Print a token of the issuer of `make dev`. Raises SettingsError if that issuer does not run."""
    servers_file.use()
    try:
        token = developer_token(api(service).openapi(), options.subject, options.scope)
    except OSError as error:
        raise SettingsError(
            f"  OIDC_ISSUER: {os.environ['OIDC_ISSUER']} does not answer ({error})\n"
            "Start `make dev` in another terminal, and leave OIDC_ISSUER out of the environment."
        ) from None
    if token is None:
        raise SettingsError(
            "  OIDC_ISSUER: is not the issuer of `make dev`\nStart `make dev` without OIDC_ISSUER in another terminal, or obtain "
            "the token from your own issuer."
        )
    print(token)
    return 0


def developer_token(
    document: dict[str, Any], subject: str = "developer", scopes: Iterable[str] | None = None
) -> str | None:
    """Obtain a token of the issuer of `make dev`, by default with all scopes of the API. Return None for another issuer."""
    issuer = os.environ.get("OIDC_ISSUER", "")
    if not issuer.endswith(PATH):
        return None
    operations = (operation for path in document["paths"].values() for operation in path.values())
    named = {name for each in operations for need in each.get("security", ()) for name in need.get(SCHEME, ())}
    audience = (
        os.environ.get("OIDC_AUDIENCE") or document["info"]["title"]
    )  # OIDC_ISSUER may name another service's issuer
    wanted = {"audience": audience, "subject": subject, "scope": " ".join(sorted(named) if scopes is None else scopes)}
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with straight.open(f"{issuer}/token", urlencode(wanted).encode(), timeout=5) as answer:
        return json.load(answer)["access_token"]


class GuardedRoute(NamedTuple):
    """A route, and all scopes that it demands."""

    method: str
    url: str
    scopes: frozenset[str]


class Client(httpx2.AsyncClient):
    """An HTTP client of the service under test, whose caller has all scopes that any route demands."""

    def __init__(self, app: FastAPI, issuer: Issuer, token: str | None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        super().__init__(transport=httpx2.ASGITransport(app), base_url="http://service", headers=headers)
        self.app, self.issuer = app, issuer

    def as_(self, subject: str, *, scopes: Iterable[str] = (), **claims: Any) -> "Client":
        """Return a client of another caller. `claims` replace or add claims of the token."""
        return Client(self.app, self.issuer, self.issuer.token(subject, scopes=scopes, **claims))

    @property
    def guarded_routes(self) -> list[GuardedRoute]:
        """Every route that is neither public nor a WebSocket. An identifier stands for each parameter of its path."""
        found = []
        for route, demand in self.app.state.guard.routes:
            url = re.sub(r"\{[^}]*\}", str(UUID(int=1)), route.path)
            found += [
                GuardedRoute(method, url, demand.scopes) for method in sorted(route.methods or ()) if demand.scopes
            ]
        return found

    def without_token(self) -> "Client":
        """Return a client that sends no token."""
        return Client(self.app, self.issuer, None)
