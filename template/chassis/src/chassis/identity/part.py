"""Oidc: the declaration in a composition root that callers show access tokens."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from chassis.identity import api_document
from chassis.identity.demands import close, texts_of
from chassis.identity.settings import OidcSettings
from chassis.settings import Settings, SettingsError
from chassis.telemetry.setup import Telemetry


@dataclass(frozen=True)
class Oidc:
    """Callers show an access token of the issuer that OIDC_ISSUER names: `Service(…, auth=Oidc())`.

    `scopes` are demanded by every route that is not public, in addition to its own scopes. `claims` are the names of
    further claims that `Caller.claims` holds.
    """

    scopes: Sequence[str] = ()
    claims: Sequence[str] = ()

    def __post_init__(self) -> None:
        texts_of("Oidc(scopes=…)", self.scopes)
        texts_of("Oidc(claims=…)", self.claims)

    def describe(self, app: FastAPI, api: dict[str, Any]) -> None:
        """Add the demands of all routes to the API document. Raises RoutesUnguarded."""
        api_document.describe(app, api, frozenset(self.scopes))

    def protect(self, app: FastAPI, settings: Settings, telemetry: Telemetry) -> "Protection":
        """Put all routes of the application behind a guard. Raises SettingsError."""
        return Protection(self, app, settings, telemetry)


class Protection:
    """The guard as a part of the application. The readiness of a process does not depend on its issuer."""

    failed = False
    details: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, oidc: Oidc, app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
        if not isinstance(settings, OidcSettings):
            raise SettingsError("  settings.py: derive the class Settings from chassis.identity.OidcSettings")
        # Imported here, because `specs` and the worker do not need these modules.
        from chassis.identity.guard import Guard
        from chassis.identity.keys import Keys, fetch_from
        from chassis.identity.tokens import Tokens

        tokens = Tokens(
            {issuer: Keys(issuer, fetch_from(issuer, url)) for issuer, url in settings.issuers.items()},
            settings.oidc_audience,
            scope_claims=settings.oidc_scope_claims.split(),
            grants=settings.grants,
            claims=oidc.claims,
        )
        self._app, self.guard = app, Guard(tokens, telemetry, frozenset(oidc.scopes))
        app.state.guard = self.guard
        self.guard.cover(app)

    @asynccontextmanager
    async def run(self, _: Callable[[], float | None]) -> AsyncGenerator[None]:
        self.guard.cover(self._app)  # a second time, because the service may have added routes since `protect`
        close(self._app.router)
        yield
