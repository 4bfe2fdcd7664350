"""Attacks on the verification of tokens: each is refused, and each succeeds on a verifier without the rule against it."""

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from chassis.identity import keys, tokens
from chassis.identity.tokens import Refused, Tokens
from joserfc import jws
from joserfc.jwk import ECKey
from joserfc.jws import CompactSignature

from tests.chassis.issuing import ISSUER, Issuer, ec_key, rsa_key


def base64url(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def unsigned(issuer: Issuer) -> bytes:
    header = json.dumps({"alg": "none", "kid": "first"}).encode()
    return b".".join((base64url(header), base64url(json.dumps(issuer.claims()).encode()), b""))


def hmac_of(signed: bytes, key: ECKey) -> bytes:
    """Sign with the public key as a secret, which convinces a verifier that trusts the algorithm in the token's header."""
    return base64url(hmac.digest(key.as_pem(private=False), signed, "sha256"))


def signed_with_the_public_key(issuer: Issuer) -> bytes:
    """Make a token whose secret is the public key, which everybody has."""
    parts = ({"alg": "HS256", "kid": "first"}, issuer.claims())
    signed = b".".join(base64url(json.dumps(part).encode()) for part in parts)
    return b".".join((signed, hmac_of(signed, issuer.key)))


def signed_with_an_embedded_key(issuer: Issuer) -> bytes:
    mine = ec_key("first")
    return issuer.token(key=mine, header={"jwk": mine.as_dict(private=False), "jku": "https://attacker.example/keys"})


def twice_named(issuer: Issuer) -> bytes:
    text = json.dumps(issuer.claims())[:-1] + ', "sub": "admin"}'
    return jws.serialize_compact({"alg": "ES256", "kid": "first"}, text, issuer.key, ["ES256"]).encode()


def with_a_broken_signature(issuer: Issuer) -> bytes:
    return issuer.token(key=ec_key("first"))


def with_other_claims(issuer: Issuer) -> bytes:
    """Make a token of one user whose claims were replaced by the claims of another."""
    header, _, signature = issuer.token().split(b".")
    return b".".join((header, base64url(json.dumps(issuer.claims(sub="admin")).encode()), signature))


def allow(algorithm: str) -> Callable[[pytest.MonkeyPatch, Tokens], None]:
    def weaken(patch: pytest.MonkeyPatch, _: Tokens) -> None:
        allowed = (*tokens.ALGORITHMS, algorithm)
        patch.setattr(tokens, "ALGORITHMS", allowed)
        patch.setattr(tokens, "REGISTRY", jws.JWSRegistry(algorithms=allowed, strict_check_header=False))

    return weaken


def believe_none(patch: pytest.MonkeyPatch, weak: Tokens) -> None:
    allow("none")(patch, weak)
    patch.setattr(tokens, "validate_compact", lambda *_, **__: True)


def confuse_keys(patch: pytest.MonkeyPatch, weak: Tokens) -> None:
    allow("HS256")(patch, weak)

    def verify(token: CompactSignature, key: ECKey, **_: Any) -> bool:
        parts = token.segments
        return hmac_of(parts["header"] + b"." + parts["payload"], key) == parts["signature"]

    patch.setattr(tokens, "validate_compact", verify)


def believe_any_signature(patch: pytest.MonkeyPatch, _: Tokens) -> None:
    patch.setattr(tokens, "validate_compact", lambda *_, **__: True)


def trust_the_key_in_the_token(patch: pytest.MonkeyPatch, _: Tokens) -> None:
    real = tokens.validate_compact
    embedded = keys.KINDS["EC"].import_key
    patch.setattr(tokens, "validate_compact", lambda token, _, **o: real(token, embedded(token.headers()["jwk"]), **o))


def drop_rule(*claims: str) -> Callable[[pytest.MonkeyPatch, Tokens], None]:
    def weaken(patch: pytest.MonkeyPatch, weak: Tokens) -> None:
        for claim in claims:
            weak._rules.options.pop(claim, None)
            patch.setattr(weak._rules, f"validate_{claim}", lambda _: None, raising=False)

    return weaken


def need_no_expiry(_: pytest.MonkeyPatch, weak: Tokens) -> None:
    weak._rules.options.pop("exp")
    weak._remember = lambda *_: None  # ty: ignore[invalid-assignment]


def trust_any_issuer(_: pytest.MonkeyPatch, weak: Tokens) -> None:
    (known,) = weak._issuers.values()
    weak._issuers = {ISSUER: known, "https://other.example": known}


def accept_repeated_names(patch: pytest.MonkeyPatch, _: Tokens) -> None:
    patch.setattr(tokens, "_unique", dict)


def accept_any_type(patch: pytest.MonkeyPatch, _: Tokens) -> None:
    patch.setattr(tokens, "TYPES", {"logout+jwt"})


def accept_any_size(patch: pytest.MonkeyPatch, _: Tokens) -> None:
    patch.setattr(tokens, "MAX_TOKEN_BYTES", 2**20)


def accept_any_name(patch: pytest.MonkeyPatch, _: Tokens) -> None:
    patch.setattr(tokens, "_name", lambda claim, claims: claims[claim])


def accept_id_tokens(patch: pytest.MonkeyPatch, _: Tokens) -> None:
    patch.setattr(tokens, "ID_TOKEN", frozenset())


@dataclass(frozen=True)
class Attack:
    token: Callable[[Issuer], bytes]
    reason: str
    weaken: Callable[[pytest.MonkeyPatch, Tokens], None]


ATTACKS = {
    "alg none": Attack(unsigned, "algorithm_not_allowed", believe_none),
    "HS256 with the public key": Attack(signed_with_the_public_key, "algorithm_not_allowed", confuse_keys),
    "another key of the same id": Attack(with_a_broken_signature, "signature_wrong", believe_any_signature),
    "replaced claims": Attack(with_other_claims, "signature_wrong", believe_any_signature),
    "a key inside the token": Attack(signed_with_an_embedded_key, "signature_wrong", trust_the_key_in_the_token),
    "another audience": Attack(lambda i: i.token(aud="customers"), "claim_wrong: aud", drop_rule("aud")),
    "no audience": Attack(lambda i: i.token(aud=None), "claim_missing: aud", drop_rule("aud")),
    "other audiences": Attack(lambda i: i.token(aud=["a", "b"]), "claim_wrong: aud", drop_rule("aud")),
    "a longer audience": Attack(lambda i: i.token(aud="tiny-x"), "claim_wrong: aud", drop_rule("aud")),
    "another issuer": Attack(lambda i: i.token(iss="https://other.example"), "issuer_unknown", trust_any_issuer),
    "expired by 61 s": Attack(lambda i: i.token(exp=i.now - 61), "token_expired", drop_rule("exp")),
    "no expiry": Attack(lambda i: i.token(exp=None), "claim_missing: exp", need_no_expiry),
    "valid in 61 s": Attack(lambda i: i.token(nbf=i.now + 61), "claim_wrong: nbf", drop_rule("nbf")),
    "issued in 61 s": Attack(lambda i: i.token(iat=i.now + 61), "claim_wrong: iat", drop_rule("iat")),
    "a claim named twice": Attack(twice_named, "token_malformed", accept_repeated_names),
    "a logout token": Attack(lambda i: i.token(header={"typ": "logout+jwt"}), "token_malformed", accept_any_type),
    "64 KB": Attack(lambda i: i.token(padding="x" * 48 * 1024), "token_too_large", accept_any_size),
    "a long subject": Attack(lambda i: i.token(sub="x" * 256), "claim_wrong: sub", accept_any_name),
    "a client with a new line": Attack(lambda i: i.token(client_id="a\nb"), "claim_wrong: client_id", accept_any_name),
    "an ID token of a login": Attack(lambda i: i.token(nonce="n-0S6"), "id_token", accept_id_tokens),
    "an ID token beside an access token": Attack(lambda i: i.token(at_hash="77QmU"), "id_token", accept_id_tokens),
}


async def refusal(verifier: Tokens, token: bytes) -> str:
    with pytest.raises(Refused) as refused:
        await verifier.caller(token)
    return refused.value.reason


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_an_attack_is_refused(issuer: Issuer, attack: Attack) -> None:
    assert await refusal(issuer.tokens(), attack.token(issuer)) == attack.reason


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_an_attack_succeeds_on_a_verifier_without_the_rule_against_the_attack(
    issuer: Issuer, attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = issuer.tokens()
    token = attack.token(issuer)
    attack.weaken(monkeypatch, weak)
    assert (await weak.caller(token)).subject


MALFORMED = [
    b"",
    b"x",
    b"..",
    b"a.b.c",
    b"a.b.c.d",
    b"\xff\xfe.\x00.x",
    b"bnVsbA.bnVsbA.bnVsbA",
    base64url(b"[]") + b"." + base64url(b"{}") + b".",
    base64url(b'{"alg": ["ES256"]}') + b"." + base64url(b'{"iss": "' + ISSUER.encode() + b'"}') + b".",
    base64url(b'{"alg": "ES256", "kid": {}}') + b"." + base64url(b'{"iss": "' + ISSUER.encode() + b'"}') + b".",
    base64url(b'{"alg": "ES256", "kid": 1}') + b"." + base64url(b'{"iss": ["' + ISSUER.encode() + b'"]}') + b".",
    base64url(b'{"alg": "ES256"}') + b"." + base64url(b"[" * 10_000) + b".",
    base64url(b'{"alg": "ES256"}') + b"." + base64url(b"9" * 6_000) + b".",
]


@pytest.mark.parametrize("token", MALFORMED, ids=range(len(MALFORMED)))
async def test_bytes_that_are_no_token_are_refused_without_a_crash(issuer: Issuer, token: bytes) -> None:
    assert await refusal(issuer.tokens(), token)


@pytest.mark.parametrize(
    "changed",
    [
        {"sub": 17},
        {"sub": ""},
        {"sub": "line\nbreak"},
        {"exp": "tomorrow"},
        {"exp": True},
        {"scope": 5},
        {"scope": ["things:read", 5]},
        {"scp": {"things:read": True}},
        {"aud": {"tiny": 1}},
        {"nbf": "now"},
    ],
    ids=str,
)
async def test_a_claim_of_a_wrong_type_is_refused(issuer: Issuer, changed: dict[str, Any]) -> None:
    assert (await refusal(issuer.tokens(), issuer.token(**changed))).startswith("claim_wrong")


@pytest.mark.parametrize("changed", [{"exp": -59}, {"nbf": 59}, {"iat": 59}], ids=str)
async def test_clocks_may_differ_by_almost_a_minute(issuer: Issuer, changed: dict[str, int]) -> None:
    times = {name: int(issuer.now) + seconds for name, seconds in changed.items()}
    assert (await issuer.tokens().caller(issuer.token(**times))).subject == "user-17"


@pytest.mark.parametrize(
    "changed",
    [
        {"scope": "things:read things:write"},
        {"scope": "  things:read   things:write "},
        {"scope": None, "scp": ["things:read", "things:write"]},
        {"scope": "things:read", "scp": ["things:write"]},
        {"scope": None, "scp": "things:read things:write"},
    ],
    ids=str,
)
async def test_scopes_are_words_of_a_string_or_items_of_a_list(issuer: Issuer, changed: dict[str, Any]) -> None:
    caller = await issuer.tokens().caller(issuer.token(**changed))
    assert caller.scopes == {"things:read", "things:write"}


async def test_a_token_without_scopes_has_none(issuer: Issuer) -> None:
    assert (await issuer.tokens().caller(issuer.token(scope=None))).scopes == frozenset()


async def test_the_caller_has_the_facts_of_the_token_and_only_the_claims_that_the_service_names(
    issuer: Issuer,
) -> None:
    caller = await issuer.tokens(claims=["tenant"]).caller(issuer.token(tenant="acme", email="a@example.com"))
    assert (caller.subject, caller.client, caller.issuer) == ("user-17", "shop-web", ISSUER)
    assert caller.claims == {"tenant": "acme"}


async def test_the_claims_that_hold_scopes_are_a_setting(issuer: Issuer) -> None:
    verifier = issuer.tokens(scope_claims=["roles"])
    assert (await verifier.caller(issuer.token(roles=["Things.Read"]))).scopes == {"Things.Read"}


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
async def test_keys_of_another_kind_verify_too(issuer: Issuer, algorithm: str) -> None:
    issuer.key = rsa_key("rsa")
    issuer.published.append(issuer.key.as_dict(private=False))
    assert (await issuer.tokens().caller(issuer.token(header={"alg": algorithm}))).subject == "user-17"


async def test_an_algorithm_of_another_kind_than_the_key_is_refused(issuer: Issuer) -> None:
    token = issuer.token(key=rsa_key("first"), header={"alg": "RS256"})
    assert await refusal(issuer.tokens(), token) == "token_malformed"


async def test_a_token_is_verified_once_and_then_remembered_until_the_expiry(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier, token = issuer.tokens(), issuer.token()
    caller = await verifier.caller(token)
    verified = []
    real = tokens.validate_compact
    monkeypatch.setattr(tokens, "validate_compact", lambda *a, **o: verified.append(1) or real(*a, **o))
    assert await verifier.caller(token) is caller
    assert verified == []
    issuer.now += 300 + 61
    assert await refusal(verifier, token) == "token_expired"


async def test_remembered_tokens_are_bounded(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_REMEMBERED", 3)
    verifier = issuer.tokens()
    for number in range(10):
        await verifier.caller(issuer.token(jti=str(number)))
    assert len(verifier._remembered) == 3


async def test_two_issuers_are_trusted_during_a_move_and_each_only_for_its_own_tokens() -> None:
    old, new = Issuer(), Issuer("https://new.example")
    verifier = Tokens({old.name: old.keys(), new.name: new.keys()}, "tiny", now=lambda: old.now)
    assert (await verifier.caller(old.token())).issuer == old.name
    assert (await verifier.caller(new.token())).issuer == new.name
    assert await refusal(verifier, new.token(iss=old.name)) == "signature_wrong"
