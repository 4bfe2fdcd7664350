"""A service that trusts two issuers, as during a move from one to the other: by discovery, and by the URLs of their keys."""

from collections.abc import Generator
from typing import NamedTuple

import pytest
from chassis.dev.issuer import Issuer

from tests.chassis.guarded import make, send

NAMES = "https://old.example", "https://new.example"


class Move(NamedTuple):
    old: Issuer
    new: Issuer


@pytest.fixture
def move() -> Generator[Move]:
    with Issuer("tiny").running() as old, Issuer("tiny").running() as new:
        yield Move(old, new)


async def test_tokens_of_both_issuers_get_in(move: Move) -> None:
    app = make(oidc_issuer=f"{move.old.url} {move.new.url}")
    for issuer, other in (move, move[::-1]):
        token = issuer.token("ana", scopes=["things:read"])
        assert (await send(app, "GET", "/v1/things", token.encode())).json() == ["ana"]
        forged = issuer.token("ana", scopes=["things:read"], iss=other.url)
        assert (await send(app, "GET", "/v1/things", forged.encode())).status_code == 401


async def test_each_issuer_has_a_url_of_its_keys_where_the_pods_do_not_reach_the_issuers_by_name(move: Move) -> None:
    app = make(oidc_issuer=" ".join(NAMES), oidc_jwks_url=f"{move.old.url}/keys {move.new.url}/keys")
    for issuer, own, other in ((move.old, *NAMES), (move.new, *NAMES[::-1])):
        tokens = [issuer.token("ana", scopes=["things:read"], iss=name).encode() for name in (own, other)]
        assert [(await send(app, "GET", "/v1/things", token)).status_code for token in tokens] == [200, 401]
