"""Oidc: what a service's composition root says about its callers."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI

from chassis.identity import document
from chassis.settings import Settings, SettingsError
from chassis.telemetry.setup import Telemetry


@dataclass(frozen=True)
class Oidc:
    """Callers show an access token of the issuer that OIDC_ISSUER names: `Service(…, auth=Oidc())`.

    `scopes` are demanded by every route that is not public, in addition to those of the route. `claims` are the names of
    further claims that `Caller.claims` holds.
    """

    scopes: Sequence[str] = ()
    claims: Sequence[str] = ()

    def describe(self, app: FastAPI, api: dict[str, Any]) -> None:
        """Add the demands of all routes to the API document. Raises RoutesUnguarded."""
        document.describe(app, api, frozenset(self.scopes))

    def protect(self, app: FastAPI, settings: Settings, telemetry: Telemetry) -> "Protection":
        """Put all routes of the application behind a guard. Raises SettingsError."""
        return Protection(self, app, settings, telemetry)


class Protection:
    """The guard as a part of the application. The readiness of a process does not depend on its issuer."""

    failed = False
    details: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, oidc: Oidc, app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
        issuers = checked(settings)
        # Here, because the specs and the worker do without them.
        from chassis.identity.guard import Guard
        from chassis.identity.keys import Keys, fetch_from
        from chassis.identity.tokens import Tokens

        tokens = Tokens(
            {issuer: Keys(issuer, fetch_from(issuer, url)) for issuer, url in issuers.items()},
            settings.oidc_audience,
            scope_claims=settings.oidc_scope_claims.split(),
            claims=oidc.claims,
        )
        self._app, self.guard = app, Guard(tokens, telemetry, frozenset(oidc.scopes))
        app.state.guard = self.guard
        self.guard.cover(app)

    @asynccontextmanager
    async def run(self, _: Callable[[], float | None]) -> AsyncGenerator[None]:
        self.guard.cover(self._app)  # again: the service may have added routes since
        yield


def checked(settings: Settings) -> dict[str, str | None]:
    """Return the trusted issuers and the URLs of their keys, if set. Raises SettingsError."""
    issuers, urls = settings.oidc_issuer.split(), settings.oidc_jwks_url.split()
    faults = [f"  {name}: is not set" for name, value in _required(settings) if not value.strip()]
    if urls and len(urls) != len(issuers):
        faults.append(f"  OIDC_JWKS_URL: has {len(urls)} URLs, but OIDC_ISSUER has {len(issuers)}: name one for each")
    for name, url in [*(("OIDC_ISSUER", each) for each in issuers), *(("OIDC_JWKS_URL", each) for each in urls)]:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.username:
            faults.append(f"  {name}: must be https:// URLs with spaces between, without user, password and query")
        elif settings.require_tls and parts.scheme == "http":
            faults.append(f"  {name}: REQUIRE_TLS is true, so keys must be fetched over https://")
    if faults:
        hint = "Set it in the environment; docs/runbook.md lists every setting."
        raise SettingsError("\n".join([*dict.fromkeys(faults), hint]))
    return dict(zip(issuers, urls or [None] * len(issuers), strict=True))


def _required(settings: Settings) -> list[tuple[str, str]]:
    return [("OIDC_ISSUER", settings.oidc_issuer), ("OIDC_AUDIENCE", settings.oidc_audience)]
