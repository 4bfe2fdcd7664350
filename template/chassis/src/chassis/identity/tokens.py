"""Verify access tokens: JSON Web Tokens of a trusted issuer, for this audience, signed by one of the issuer's keys."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jws import JWSRegistry, extract_compact, validate_compact
from joserfc.jwt import JWTClaimsRegistry

from chassis.database.unit_of_work import as_subject
from chassis.identity.callers import Caller
from chassis.identity.keys import Keys, KeysUnavailable

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
LEEWAY_SECONDS = 60
"""How far the clocks of issuer and service may differ."""
MAX_TOKEN_BYTES = 16 * 1024
MAX_REMEMBERED = 10_000
CLIENT_CLAIMS = ("client_id", "azp", "appid", "cid")
"""The claims that name the client: of RFC 9068, OpenID Connect, Entra ID and Okta."""

TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
ID_TOKEN = frozenset({"nonce", "at_hash", "c_hash"})
"""The claims of ID tokens, which tell an application who has logged in: many have the type of an access token."""

REGISTRY = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)


class Refused(Exception):
    """The caller is not let in. `reason` is for logs and metrics, and never holds a part of the token."""

    def __init__(self, reason: str, status: int = 401) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


class Tokens:
    """Verify tokens, and remember verified tokens until they expire: a second request costs microseconds.

    The memory holds digests, not tokens, and forgets the oldest when it is full.
    """

    def __init__(
        self,
        issuers: Mapping[str, Keys],
        audience: str,
        *,
        scope_claims: Sequence[str] = ("scope", "scp"),
        grants: Mapping[tuple[str, str], frozenset[str]] | None = None,
        claims: Sequence[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._issuers, self._scope_claims, self._claims, self._now = issuers, scope_claims, claims, now
        self._grants = grants or {}
        self._rules = JWTClaimsRegistry(
            now=lambda: int(now()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True},
            sub={"essential": True},
            exp={"essential": True},
            aud={"essential": True, "value": audience},
        )
        self._remembered: dict[bytes, tuple[Caller, float, Keys, int]] = {}

    async def caller(self, token: bytes) -> Caller:
        """Return the caller that the token names. Raises Refused."""
        if len(token) > MAX_TOKEN_BYTES:
            raise Refused("token_too_large")
        digest = hashlib.sha256(token).digest()
        if remembered := self._remembered.get(digest):
            caller, expires_at, keys, revision = remembered
            await keys.refresh_if_old()
            if self._now() < expires_at and revision == keys.revision:
                return caller
            del self._remembered[digest]
        return await self._verify(token, digest)

    async def _verify(self, token: bytes, digest: bytes) -> Caller:
        try:
            unverified = extract_compact(token, registry=REGISTRY)
            header = unverified.headers()
            claims = json.loads(unverified.payload, object_pairs_hook=_unique)
            if not isinstance(claims, dict) or "crit" in header or str(header.get("typ", "")).lower() not in TYPES:
                raise Refused("token_malformed")
            if header.get("alg") not in ALGORITHMS:
                raise Refused("algorithm_not_allowed")
            if not ID_TOKEN.isdisjoint(claims):
                raise Refused("id_token")
            issuer = claims.get("iss")
            if not isinstance(issuer, str) or issuer not in self._issuers:
                raise Refused("issuer_unknown")
            keys = self._issuers[issuer]
            key = await keys.find(header.get("kid"))
            if key is None:
                raise Refused("key_unknown")
            revision = keys.revision
            if not validate_compact(unverified, key, registry=REGISTRY):
                raise Refused("signature_wrong")
            self._rules.validate(claims)
            caller = self._caller_of(claims)
        except KeysUnavailable:
            raise Refused("keys_unavailable", 503) from None
        except ExpiredTokenError:
            raise Refused("token_expired") from None
        except MissingClaimError as error:
            raise Refused(f"claim_missing: {error.claim}") from None
        except InvalidClaimError as error:
            raise Refused(f"claim_wrong: {error.claim}") from None
        except (JoseError, ValueError, TypeError, RecursionError):
            raise Refused("token_malformed") from None
        self._remember(digest, caller, claims, keys, revision)
        return caller

    def _remember(self, digest: bytes, caller: Caller, claims: dict[str, Any], keys: Keys, revision: int) -> None:
        while len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = caller, claims["exp"] + LEEWAY_SECONDS, keys, revision

    def _caller_of(self, claims: dict[str, Any]) -> Caller:
        client = next((_name(claim, claims) for claim in CLIENT_CLAIMS if claim in claims), None)
        granted = frozenset(scope for name in self._scope_claims for scope in _words(name, claims.get(name, "")))
        kept = {name: claims[name] for name in self._claims if name in claims}
        issuer, subject = claims["iss"], _name("sub", claims)
        return Caller(subject, issuer, client, granted | self._grants.get((issuer, subject), frozenset()), kept)


def _name(claim: str, claims: dict[str, Any]) -> str:
    name = as_subject(claims[claim])
    if name is None:
        raise Refused(f"claim_wrong: {claim}")
    return name


def _words(name: str, value: Any) -> list[str]:
    """Read scopes, which issuers write as words in one string, or as a list."""
    words = value.split(" ") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Refused(f"claim_wrong: {name}")
    return [word for word in words if word]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object with a repeated name, from which two readers may take two values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is repeated")
    return found
