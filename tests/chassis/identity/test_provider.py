"""The tokens of a provider that is not ours are accepted: discovery, client credentials, and a rotation of its keys."""

from typing import Any

import pytest
from chassis.identity import keys
from fastapi import FastAPI

from tests.chassis.guarded import make, send
from tests.chassis.issuing import Issuer
from tests.support.oidc_provider import CLIENT_ID, Provider
from tests.support.waiting import until

AUDIENCE = "https://tiny.example"


@pytest.fixture
def app(provider: Provider) -> FastAPI:
    return make(oidc_issuer=provider.url, oidc_audience=AUDIENCE)


async def test_a_client_with_a_token_of_a_real_provider_gets_in(app: FastAPI, provider: Provider) -> None:
    """The service knows only the issuer: the URL of the keys comes from the discovery document."""
    answer = await send(app, "GET", "/v1/things", provider.token(AUDIENCE))
    assert (answer.status_code, answer.json()) == (200, [CLIENT_ID])


async def test_scopes_and_audience_of_a_real_provider_decide(app: FastAPI, provider: Provider) -> None:
    other = provider.token("https://customers.example")
    assert (await send(app, "GET", "/v1/things", other)).status_code == 401
    unscoped = provider.token(AUDIENCE, "things:admin")  # a scope that this provider does not know, and leaves out
    assert (await send(app, "GET", "/v1/things", unscoped)).status_code == 403
    reader, writer = provider.token(AUDIENCE), provider.token(AUDIENCE, "things:read things:write")
    answers = [await send(app, "POST", "/v1/things", token, json={"name": "lamp"}) for token in (reader, writer)]
    assert [answer.status_code for answer in answers] == [403, 200]


def test_a_wrong_secret_obtains_no_token(provider: Provider) -> None:
    refused = provider.ask_for_token(AUDIENCE, secret="wrong")
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


async def test_keys_of_a_real_provider_rotate_while_the_service_runs(
    app: FastAPI, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(keys, "MAX_AGE_SECONDS", 0)

    async def status(token: bytes) -> int:
        return (await send(app, "GET", "/v1/things", token)).status_code

    async def is_refused() -> bool:
        return await status(old) == 401

    old = provider.token(AUDIENCE)
    assert await status(old) == 200
    provider.rotate()
    new = provider.token(AUDIENCE)
    assert [await status(token) for token in (new, old)] == [200, 200]
    provider.retire()
    await until(is_refused)  # the keys are fetched again in the background
    assert await status(new) == 200


KEYCLOAK = {
    "typ": "Bearer",
    "aud": ["tiny", "account"],
    "azp": "web",
    "sid": "wI1fFCXFF1oq1H2laYXyoo87",
    "acr": "1",
    "realm_access": {"roles": ["offline_access"]},
    "scope": "openid things:read profile",
    "roles": ["things:write"],
}
ENTRA = {
    "ver": "2.0",
    "aio": "AWQA",
    "oid": "00000000-0000-0000",
    "azp": "6e74",
    "azpacr": "1",
    "rh": "0.AX",
    "scope": None,
}
AUTH0 = {
    "aud": ["tiny", "https://shop.eu.auth0.com/userinfo"],
    "azp": "web",
    "scope": "openid things:read",
    "permissions": ["things:read", "things:write"],
}
OKTA = {"ver": 1, "jti": "AT.0mP", "cid": "web", "uid": "00u1", "scope": None, "scp": ["openid", "things:read"]}


@pytest.mark.parametrize(
    ("claims", "claims_of_scopes", "granted", "client"),
    [
        (KEYCLOAK, "scope scp", {"openid", "things:read", "profile"}, "web"),
        (KEYCLOAK, "scope roles", {"openid", "things:read", "profile", "things:write"}, "web"),
        (ENTRA | {"scp": "Things.Read"}, "scope scp", {"Things.Read"}, "6e74"),
        (ENTRA | {"idtyp": "app", "roles": ["Things.Read.All"]}, "scp roles", {"Things.Read.All"}, "6e74"),
        (AUTH0, "scope scp", {"openid", "things:read"}, "web"),
        (AUTH0, "permissions", {"things:read", "things:write"}, "web"),
        (OKTA, "scope scp", {"openid", "things:read"}, "web"),
    ],
)
async def test_the_settings_of_the_page_on_identity_providers_fit_their_tokens(
    issuer: Issuer, claims: dict[str, Any], claims_of_scopes: str, granted: set[str], client: str
) -> None:
    """Keycloak 26.5 has issued the first claims. The other claims are in the documentation of the providers."""
    verifier = issuer.tokens(scope_claims=claims_of_scopes.split())
    caller = await verifier.caller(issuer.token(client_id=None, **claims))
    assert (caller.scopes, caller.client) == (granted, client)
