"""An issuer for services that run as in production, and the settings and headers with which it is used."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from chassis.dev.issuer import Issuer

NAME = "https://issuer.example"
"""The name of the issuer. It differs from the name of `make dev`'s issuer, which `serve` refuses."""


@dataclass(frozen=True)
class Trusted:
    """An issuer whose keys a service fetches from loopback."""

    issuer: Issuer

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a service that trusts the issuer."""
        return {
            "OIDC_ISSUER": NAME,
            "OIDC_AUDIENCE": self.issuer.audience,
            "OIDC_JWKS_URL": f"{self.issuer.url}/keys",
        }

    def headers(self, *nouns: str, **claims: Any) -> dict[str, str]:
        """Return the headers of a caller who may read and write these resources, such as `invoices`."""
        scopes = [f"{noun}:{action}" for noun in nouns for action in ("read", "write")]
        return {"Authorization": f"Bearer {self.issuer.token('tester', scopes=scopes, iss=NAME, **claims)}"}


@contextmanager
def trusted_issuer(audience: str = "billing") -> Generator[Trusted]:
    with Issuer(audience).running() as issuer:
        yield Trusted(issuer)
