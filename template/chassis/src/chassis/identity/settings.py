"""The settings of a service whose callers show access tokens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from chassis.database.unit_of_work import as_subject
from chassis.identity.demands import SCOPE
from chassis.settings import Settings

if TYPE_CHECKING:
    from chassis.identity.own_tokens import OwnToken


def _urls(text: str) -> str:
    for url in text.split():
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise ValueError("must be https:// URLs with a space between them, without user, password and query")
    return text


def _are_scopes(text: str) -> bool:
    return bool(text) and all(map(SCOPE.fullmatch, text.split()))


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

    oidc_grants: Annotated[str, Field(max_length=16 * 1024)] = ""
    """Scopes for subjects whose tokens have none, as those of Kubernetes: `<issuer> <subject> <scope> …; …`."""
    oidc_token_folder: Path | None = None
    """The folder of this service's own tokens, which Kubernetes writes: one file for each audience, named after it."""
    oidc_client_id: str = ""
    """The client of this service at the issuer, if the service obtains its own tokens by client credentials."""
    oidc_client_secret: SecretStr | None = None
    """The secret of OIDC_CLIENT_ID."""

    def token_for(self, audience: str, **form: str) -> "OwnToken | None":
        """Return a token of this service for a neighbour: `service_client(url, auth=settings.token_for("customers"))`.

        The audience is the neighbour's OIDC_AUDIENCE. `form` are further fields of the request for client credentials, if the
        issuer needs them, such as scope or resource. Without OIDC_TOKEN_FOLDER and OIDC_CLIENT_ID there is no token.
        """
        from chassis.identity import own_tokens  # imported here, because most services call nobody

        if self.oidc_token_folder is not None:
            if audience in ("", "..") or Path(audience).name != audience:
                raise ValueError(f"{audience!r} cannot be the name of a file in OIDC_TOKEN_FOLDER: use a plain name")
            return own_tokens.from_file(self.oidc_token_folder / audience)
        if self.oidc_client_secret is None:
            return None
        fields = tuple(sorted({"audience": audience, **form}.items()))
        secret = self.oidc_client_secret.get_secret_value()
        return own_tokens.from_credentials(self.oidc_issuer.split()[0], self.oidc_client_id, secret, fields)

    @property
    def grants(self) -> dict[tuple[str, str], frozenset[str]]:
        """The scopes that OIDC_GRANTS adds, by issuer and subject."""
        found: dict[tuple[str, str], frozenset[str]] = {}
        for number, grant in enumerate(filter(str.strip, self.oidc_grants.split(";")), 1):
            issuer, subject, scopes = [*grant.split(maxsplit=2), "", ""][:3]
            if issuer not in self.issuers or not as_subject(subject) or not _are_scopes(scopes):
                raise ValueError(
                    f"grant {number} of OIDC_GRANTS must be an issuer of OIDC_ISSUER, a subject and scopes, with spaces between "
                    "them, and a semicolon between two grants"
                )
            found[issuer, subject] = found.get((issuer, subject), frozenset()).union(scopes.split())
        return found

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
        _ = self.grants  # at the start, rather than at the first token
        if bool(self.oidc_client_id) != (self.oidc_client_secret is not None):
            raise ValueError("OIDC_CLIENT_ID and OIDC_CLIENT_SECRET belong together: set both or none")
        if self.require_tls and self.oidc_client_id and not issuers[0].startswith("https://"):
            raise ValueError(
                f"REQUIRE_TLS is true, so the issuer that reads OIDC_CLIENT_SECRET needs an https:// URL, and not {issuers[0]}"
            )
        if self.oidc_client_id and self.oidc_token_folder is not None:
            raise ValueError("OIDC_TOKEN_FOLDER and OIDC_CLIENT_ID are two ways to a token: set one of them")
        return self
