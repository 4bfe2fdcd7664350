"""The settings of a service whose callers show access tokens."""

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from chassis.settings import Settings


def _urls(text: str) -> str:
    for url in text.split():
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise ValueError("must be https:// URLs with a space between them, without user, password and query")
    return text


class OidcSettings(Settings):
    """The settings of every service, and where its callers' access tokens come from: the base class in settings.py."""

    oidc_issuer: Annotated[str, Field(min_length=1), AfterValidator(_urls)]
    """The issuer of accepted access tokens, exactly as their `iss`. During a move: both, with a space between them."""
    oidc_audience: Annotated[str, Field(min_length=1)]
    """The `aud` of accepted access tokens, which names this service and no other."""
    oidc_jwks_url: Annotated[str, AfterValidator(_urls)] = ""
    """The URL of the issuer's keys, if the pods do not reach the issuer by its name. One for each issuer."""
    oidc_scope_claims: str = "scope scp"
    """The claims that hold scopes. Add `roles` if the issuer writes scopes there."""

    @property
    def issuers(self) -> dict[str, str | None]:
        """The trusted issuers, and the URLs of their keys if they are set."""
        issuers, urls = self.oidc_issuer.split(), self.oidc_jwks_url.split()
        return dict(zip(issuers, urls or [None] * len(issuers), strict=True))

    @model_validator(mode="after")
    def _fit(self) -> Self:
        issuers, urls = self.oidc_issuer.split(), self.oidc_jwks_url.split()
        if urls and len(urls) != len(issuers):
            raise ValueError(
                f"OIDC_JWKS_URL has {len(urls)} URLs, but OIDC_ISSUER has {len(issuers)}: name one for each"
            )
        if self.require_tls and (plain := [url for url in urls or issuers if not url.startswith("https://")]):
            raise ValueError(f"REQUIRE_TLS is true, so the keys of an issuer need an https:// URL, and not {plain[0]}")
        return self
