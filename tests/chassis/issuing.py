"""An issuer of access tokens in this process, with a clock that the test turns."""

from typing import Any

from chassis.identity.keys import Keys
from chassis.identity.tokens import Tokens
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

ISSUER = "https://issuer.example/realms/shop"
AUDIENCE = "tiny"


class Down(Exception):
    """The issuer does not answer."""


class Issuer:
    """Issue tokens, and publish the keys that verify them. `fetches` counts how often the keys were asked for."""

    def __init__(self, name: str = ISSUER) -> None:
        self.name = name
        self.now = 1_800_000_000.0
        self.down = False
        self.fetches = 0
        self.key = ec_key("first")
        self.published: list[Any] = [self.key.as_dict(private=False)]

    def rotate(self, key_id: str) -> None:
        """Sign with a new key, and publish only that."""
        self.key = ec_key(key_id)
        self.published = [self.key.as_dict(private=False)]

    async def fetch(self) -> dict[str, Any]:
        self.fetches += 1
        if self.down:
            raise Down("the issuer is down")
        return {"keys": list(self.published)}

    def keys(self) -> Keys:
        return Keys(self.name, self.fetch, clock=lambda: self.now)

    def tokens(self, **options: Any) -> Tokens:
        return Tokens({self.name: self.keys()}, AUDIENCE, now=lambda: self.now, **options)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return the claims of a good token with changes; a change to None leaves the claim out."""
        claims = {
            "iss": self.name,
            "sub": "user-17",
            "aud": AUDIENCE,
            "exp": int(self.now) + 300,
            "iat": int(self.now),
            "client_id": "shop-web",
            "scope": "things:read things:write",
        }
        return {name: value for name, value in {**claims, **changed}.items() if value is not None}

    def token(self, *, header: dict[str, Any] | None = None, key: Any = None, **changed: Any) -> bytes:
        key = key or self.key
        head = {"alg": "ES256", "kid": key.kid, **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        return jwt.encode(head, self.claims(**changed), key, algorithms=[head["alg"]]).encode()


def ec_key(key_id: str | None) -> ECKey:
    return ECKey.generate_key("P-256", parameters={"kid": key_id, "use": "sig"} if key_id else {"use": "sig"})


def rsa_key(key_id: str) -> RSAKey:
    return RSAKey.generate_key(2048, parameters={"kid": key_id})
