"""Tokens of attackers who know the code: odd headers, odd numbers, odd texts, and signatures that fit another algorithm."""

import base64
import json
from typing import Any

import pytest
from chassis.identity import tokens
from chassis.identity.tokens import Refused, Tokens
from joserfc import jws
from joserfc.jwk import ECKey

from tests.chassis.issuing import Issuer, ec_key, rsa_key


async def refusal(verifier: Tokens, token: bytes) -> str:
    with pytest.raises(Refused) as refused:
        await verifier.caller(token)
    return refused.value.reason


def signed(issuer: Issuer, claims: str) -> bytes:
    """Sign claims that are written by hand, because Python's json would not write them."""
    return jws.serialize_compact({"alg": "ES256", "kid": "first"}, claims, issuer.key, ["ES256"]).encode()


def with_header(issuer: Issuer, key: Any = None, **header: Any) -> bytes:
    """Sign a token with a header that a library may refuse to write."""
    parts = ({"alg": "ES256", "kid": "first", **header}, issuer.claims())
    text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    return text + b"." + base64.urlsafe_b64encode(sign(text, key or issuer.key)).rstrip(b"=")


def sign(text: bytes, key: ECKey) -> bytes:
    return jws.JWSRegistry.algorithms["ES256"].sign(text, key)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"crit": None},
        {"typ": "JWE"},
        {"typ": "id_token+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": ["JWT"]},
        {"kid": {}},
        {"kid": ["first"]},
        {"alg": "es256"},
        {"alg": "ES256K"},
        {"alg": "HS512"},
        {"alg": "nOnE"},
        {"alg": None},
    ],
    ids=str,
)
async def test_a_header_that_asks_for_other_rules_is_refused(issuer: Issuer, header: dict[str, Any]) -> None:
    assert await refusal(issuer.tokens(), with_header(issuer, **header)) in {"token_malformed", "algorithm_not_allowed"}


@pytest.mark.parametrize("name", ["jku", "x5u", "x5c", "jwk", "b64"])
async def test_a_key_in_the_header_or_its_address_is_neither_used_nor_fetched(issuer: Issuer, name: str) -> None:
    mine = ec_key("first")
    value = {"jwk": mine.as_dict(private=False), "x5c": ["MIIB"], "b64": True}.get(
        name, "https://attacker.example/keys"
    )
    assert await refusal(issuer.tokens(), with_header(issuer, mine, **{name: value})) == "signature_wrong"
    assert issuer.fetches == 1


async def test_an_unencoded_payload_is_refused(issuer: Issuer) -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"first","b64":false}').rstrip(b"=")
    text = header + b"." + json.dumps(issuer.claims()).encode().replace(b".", b"")
    signature = base64.urlsafe_b64encode(sign(text, issuer.key)).rstrip(b"=")
    assert await refusal(issuer.tokens(), text + b"." + signature) in {"token_malformed", "issuer_unknown"}


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", '"1800000300"', "null", "[1800000300]", "true"]
)
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
async def test_a_time_that_is_no_finite_number_is_refused(issuer: Issuer, claim: str, number: str) -> None:
    claims = json.dumps(issuer.claims(**{claim: "@"})).replace('"@"', number)
    assert (await refusal(issuer.tokens(), signed(issuer, claims))).startswith("claim_")


@pytest.mark.parametrize("number", ["-1", "0", "1800000300.5", "1e300", "9" * 400])
async def test_a_time_of_any_size_is_compared(issuer: Issuer, number: str) -> None:
    verifier = issuer.tokens()
    token = signed(issuer, json.dumps(issuer.claims(exp="@")).replace('"@"', number))
    if number in ("-1", "0"):
        assert await refusal(verifier, token) == "token_expired"
    else:
        assert await verifier.caller(token) is await verifier.caller(token)


@pytest.mark.parametrize(
    "text", ["line\\n", "tab\\t", "nul\\u0000", "\\u2028", "\\u202eadmin", "\\ud800", "\\u200b", ""]
)
@pytest.mark.parametrize("claim", ["sub", "client_id", "azp", "appid", "cid"])
async def test_no_text_of_a_token_can_forge_a_log_line(issuer: Issuer, claim: str, text: str) -> None:
    claims = json.dumps(issuer.claims(**{"client_id": None, claim: "@"})).replace("@", text)
    assert await refusal(issuer.tokens(), signed(issuer, claims)) == f"claim_wrong: {claim}"


@pytest.mark.parametrize("subject", ["Zoë Müller", "用户-17", "a b", "auth0|5f7c", "system:serviceaccount:shop:web"])
async def test_the_subjects_of_issuers_everywhere_are_accepted(issuer: Issuer, subject: str) -> None:
    assert (await issuer.tokens().caller(issuer.token(sub=subject))).subject == subject


@pytest.mark.parametrize("audience", [["other", "tiny"], ["tiny"]], ids=str)
async def test_the_audience_may_be_one_of_several(issuer: Issuer, audience: list[str]) -> None:
    assert (await issuer.tokens().caller(issuer.token(aud=audience))).subject == "user-17"


@pytest.mark.parametrize(
    "audience", [[], ["TINY"], "tiny ", " tiny", "tiny,other", ["tiny other"], [["tiny"]], 5, [None]]
)
async def test_an_audience_that_only_resembles_ours_is_refused(issuer: Issuer, audience: Any) -> None:
    assert (await refusal(issuer.tokens(), issuer.token(aud=audience))).startswith("claim_")


async def test_the_authorized_party_is_no_audience(issuer: Issuer) -> None:
    assert await refusal(issuer.tokens(), issuer.token(aud="web", azp="tiny")) == "claim_wrong: aud"


@pytest.mark.parametrize("name", ["https://issuer.example/realms/shop/", "HTTPS://issuer.example/realms/shop", " "])
async def test_an_issuer_that_only_resembles_ours_is_refused(issuer: Issuer, name: str) -> None:
    assert await refusal(issuer.tokens(), issuer.token(iss=name)) == "issuer_unknown"


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES384", "Ed25519"])
async def test_an_algorithm_that_does_not_fit_the_key_is_refused(issuer: Issuer, algorithm: str) -> None:
    header, payload, signature = with_header(issuer, alg=algorithm).split(b".")
    for changed in (signature, b"", b"AA", base64.urlsafe_b64encode(bytes(64)).rstrip(b"=")):
        token = b".".join((header, payload, changed))
        assert await refusal(issuer.tokens(), token) in {"token_malformed", "signature_wrong"}


async def test_a_signature_of_zeros_is_refused(issuer: Issuer) -> None:
    header, payload, _ = issuer.token().split(b".")
    for size in (0, 64, 96, 512):
        zeros = base64.urlsafe_b64encode(bytes(size)).rstrip(b"=")
        assert await refusal(issuer.tokens(), b".".join((header, payload, zeros))) == "signature_wrong"


@pytest.mark.parametrize("algorithms", [("RS256", "PS256"), ("PS256", "RS256"), ("RS256", "RS512")])
async def test_the_signature_of_one_rsa_algorithm_does_not_count_for_another(
    issuer: Issuer, algorithms: tuple[str, str]
) -> None:
    issuer.key = rsa_key("rsa")
    issuer.published = [issuer.key.as_dict(private=False)]
    real, claimed = algorithms
    _, payload, signature = issuer.token(header={"alg": real}).split(b".")
    header, _, _ = issuer.token(header={"alg": claimed}).split(b".")
    assert await refusal(issuer.tokens(), b".".join((header, payload, signature))) == "signature_wrong"


@pytest.mark.parametrize("add", [b",", b"=", b"==", b" ", b"\n", b"%3D", b"\x00", b"."])
async def test_a_token_has_no_second_spelling_that_would_fill_the_memory(issuer: Issuer, add: bytes) -> None:
    verifier, token = issuer.tokens(), issuer.token()
    await verifier.caller(token)
    for changed in (token + add, add + token, token.replace(b".", add + b".", 1), token.replace(b".", b"." + add, 1)):
        assert await refusal(verifier, changed)
    assert len(verifier._remembered) == 1


async def test_a_clock_that_is_set_back_does_not_lengthen_the_life_of_a_token(issuer: Issuer) -> None:
    verifier, token = issuer.tokens(), issuer.token()
    await verifier.caller(token)
    issuer.now -= 3600
    assert (await verifier.caller(token)).subject == "user-17"
    issuer.now += 3600 + 300 + 60
    assert await refusal(verifier, token) == "token_expired"


async def test_refused_tokens_leave_nothing_in_memory(issuer: Issuer) -> None:
    verifier = issuer.tokens()
    for number in range(20):
        await refusal(verifier, issuer.token(aud="other", jti=str(number)))
        await refusal(verifier, issuer.token(header={"kid": f"unknown-{number}"}))
    (found,) = verifier._issuers.values()
    assert (verifier._remembered, list(found._by_id)) == ({}, ["first"])


def test_the_allowed_algorithms_are_asymmetric() -> None:
    kinds = {type(each).__name__ for name in tokens.ALGORITHMS if (each := jws.JWSRegistry.algorithms[name])}
    assert not any("HMAC" in kind or "None" in kind for kind in kinds)
