"""The keys of an issuer are fetched when they are needed, by one fetch for all callers, and kept while the issuer is down."""

import asyncio

import pytest
from chassis.identity import keys
from chassis.identity.keys import PAUSE_SECONDS
from chassis.identity.tokens import Refused, Tokens
from joserfc.jwk import OctKey, RSAKey

from tests.chassis.issuing import Issuer, ec_key


async def refusal(verifier: Tokens, token: bytes) -> tuple[str, int]:
    with pytest.raises(Refused) as refused:
        await verifier.caller(token)
    return refused.value.reason, refused.value.status


async def test_nothing_is_fetched_before_the_first_token(issuer: Issuer) -> None:
    verifier = issuer.tokens()
    await asyncio.sleep(0)
    assert issuer.fetches == 0
    await verifier.caller(issuer.token())
    await verifier.caller(issuer.token(sub="user-18"))
    assert issuer.fetches == 1


@pytest.mark.slow
async def test_a_thousand_unknown_keys_at_once_cause_one_fetch(issuer: Issuer) -> None:
    verifier = issuer.tokens()
    await verifier.caller(issuer.token())
    issuer.now += PAUSE_SECONDS
    wrong = [issuer.token(header={"kid": f"unknown-{number}"}) for number in range(1000)]
    found = await asyncio.gather(*(refusal(verifier, token) for token in wrong))
    assert set(found) == {("key_unknown", 401)}
    assert issuer.fetches == 2
    issuer.now += PAUSE_SECONDS - 1
    await refusal(verifier, issuer.token(header={"kid": "unknown"}))
    assert issuer.fetches == 2
    issuer.now += 1
    await refusal(verifier, issuer.token(header={"kid": "unknown"}))
    assert issuer.fetches == 3


async def test_a_new_key_is_fetched_at_once_and_a_key_that_was_rotated_away_is_refused(issuer: Issuer) -> None:
    verifier = issuer.tokens()
    await verifier.caller(issuer.token())
    old_key, old_token = issuer.key, issuer.token()
    issuer.rotate("second")
    issuer.now += PAUSE_SECONDS
    assert (await verifier.caller(issuer.token())).subject == "user-17"
    assert await refusal(verifier, issuer.token(key=old_key)) == ("key_unknown", 401)
    assert await refusal(verifier, old_token) == ("key_unknown", 401), "the memory outlives the key"


async def test_a_revoked_key_is_forgotten_although_no_token_names_another(issuer: Issuer) -> None:
    verifier, token = issuer.tokens(), issuer.token(exp=int(issuer.now) + 86_400)
    await verifier.caller(token)
    issuer.rotate("second")
    issuer.now += keys.MAX_AGE_SECONDS + 1
    await verifier.caller(token)  # this request starts the fetch, and does not wait for it
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await refusal(verifier, token))[0] == "key_unknown"


@pytest.mark.parametrize("remembered", [True, False])
async def test_an_idle_service_accepts_no_token_of_a_key_that_was_revoked_meanwhile(
    issuer: Issuer, remembered: bool
) -> None:
    verifier = issuer.tokens()
    known, new = (issuer.token(exp=int(issuer.now) + 86_400, jti=number) for number in "12")
    await verifier.caller(known)
    issuer.rotate("second")
    issuer.now += keys.MAX_AGE_SECONDS + PAUSE_SECONDS + 1
    assert await refusal(verifier, known if remembered else new) == ("key_unknown", 401)


async def test_only_the_first_request_after_a_silence_waits_for_an_issuer_that_is_down(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier, token = issuer.tokens(), issuer.token(exp=int(issuer.now) + 86_400)
    await verifier.caller(token)
    answer, waiting = asyncio.Event(), asyncio.Event()

    async def hang() -> dict[str, object]:
        waiting.set()
        await answer.wait()
        raise TimeoutError

    monkeypatch.setattr(verifier._issuers[issuer.name], "_fetch", hang)
    issuer.now += keys.MAX_AGE_SECONDS + PAUSE_SECONDS + 1
    first = asyncio.create_task(verifier.caller(token))
    await waiting.wait()
    assert not first.done()
    answer.set()
    assert (await first).subject == "user-17"
    answer.clear()
    issuer.now += PAUSE_SECONDS
    async with asyncio.timeout(5):
        assert (await verifier.caller(token)).subject == "user-17", "this request waits, too"
    answer.set()


async def test_known_keys_stay_while_the_issuer_is_down(issuer: Issuer) -> None:
    verifier = issuer.tokens()
    await verifier.caller(issuer.token())
    issuer.down = True
    issuer.now += 100 * keys.MAX_AGE_SECONDS
    assert (await verifier.caller(issuer.token())).subject == "user-17"
    assert await refusal(verifier, issuer.token(key=ec_key("second"))) == ("key_unknown", 401)


async def test_without_any_key_nobody_is_called_unauthenticated(issuer: Issuer) -> None:
    issuer.down = True
    verifier = issuer.tokens()
    assert await refusal(verifier, issuer.token()) == ("keys_unavailable", 503)
    assert await refusal(verifier, issuer.token()) == ("keys_unavailable", 503)
    assert issuer.fetches == 1
    issuer.down = False
    issuer.now += keys.FIRST_PAUSE_SECONDS
    assert (await verifier.caller(issuer.token())).subject == "user-17"


async def test_a_caller_that_disconnects_does_not_end_the_fetch_of_the_others(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, real = asyncio.Event(), issuer.fetch

    async def slow() -> dict[str, object]:
        await answer.wait()
        return await real()

    monkeypatch.setattr(issuer, "fetch", slow)
    verifier = issuer.tokens()
    leaving, staying = (asyncio.create_task(verifier.caller(issuer.token())) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    answer.set()
    assert (await staying).subject == "user-17"
    assert issuer.fetches == 1


@pytest.mark.parametrize(
    "odd", [None, {}, {"keys": None}, {"keys": []}, {"keys": ["x"]}, {"keys": [{"kty": "RSA"}]}], ids=str
)
async def test_an_odd_answer_leaves_the_known_keys(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, odd: object
) -> None:
    verifier = issuer.tokens()
    await verifier.caller(issuer.token())

    async def answer() -> object:
        issuer.fetches += 1
        return odd

    monkeypatch.setattr(verifier._issuers[issuer.name], "_fetch", answer)
    issuer.now += PAUSE_SECONDS
    assert await refusal(verifier, issuer.token(header={"kid": "unknown"})) == ("key_unknown", 401)
    assert issuer.fetches == 2
    assert (await verifier.caller(issuer.token())).subject == "user-17"


@pytest.mark.filterwarnings("ignore:Key size should be")
async def test_keys_that_cannot_verify_are_skipped_and_the_others_serve(issuer: Issuer) -> None:
    secret = OctKey.generate_key(256, parameters={"kid": "secret"})
    issuer.published = [
        secret.as_dict(),
        {"kty": "RSA", "kid": "broken", "n": "x", "e": "AQAB"},
        {"kty": "new", "kid": "unknown"},
        {**ec_key("encryption").as_dict(private=False), "use": "enc"},
        RSAKey.generate_key(1024, parameters={"kid": "short"}).as_dict(private=False),
        *issuer.published,
    ]
    verifier = issuer.tokens()
    assert (await verifier.caller(issuer.token())).subject == "user-17"
    assert list(verifier._issuers[issuer.name]._by_id) == ["first"]


async def test_a_token_without_a_key_id_is_verified_by_the_only_key(issuer: Issuer) -> None:
    verifier = issuer.tokens()
    assert (await verifier.caller(issuer.token(header={"kid": None}))).subject == "user-17"
    issuer.published.append(ec_key("second").as_dict(private=False))
    assert await refusal(issuer.tokens(), issuer.token(header={"kid": None})) == ("key_unknown", 401)
