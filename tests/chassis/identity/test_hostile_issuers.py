"""An issuer, or somebody between the issuer and the service, answers with anything: the service stays up, and trusts nothing."""

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
import pytest
import structlog
from chassis.identity import issuer_documents, keys
from chassis.identity.issuer_documents import MAX_BYTES

from tests.chassis.issuing import Issuer

URL = "https://issuer.example"
KEYS = {"keys": Issuer().published}
Answer = Callable[[httpx2.Request], httpx2.Response]


def answering(patch: pytest.MonkeyPatch, answer: Answer) -> list[str]:
    """Let `answer` answer all requests of httpx2. Returns the list of the requested URLs, which grows."""
    asked = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return answer(request)

    real = httpx2.AsyncClient
    patch.setattr(httpx2, "AsyncClient", lambda **options: real(transport=httpx2.MockTransport(handle), **options))
    return asked


def body(content: bytes, **options: Any) -> httpx2.Response:
    async def parts() -> AsyncGenerator[bytes]:
        for start in range(0, len(content), 64 * 1024):
            yield content[start : start + 64 * 1024]

    return httpx2.Response(200, content=parts(), **options)


def documents(**changed: Any) -> Answer:
    """Answer as an issuer that compresses if the client accepts that. `changed` are fields of the discovery document."""
    discovery = {"issuer": URL, "jwks_uri": f"{URL}/keys", **changed}

    def answer(request: httpx2.Request) -> httpx2.Response:
        content = json.dumps(KEYS if request.url.path == "/keys" else discovery).encode()
        if request.headers["Accept-Encoding"] == "identity":
            return body(content)
        return body(gzip.compress(content), headers={"Content-Encoding": "gzip"})

    return answer


async def refusal(keys_url: str | None = None) -> str:
    """Fetch once, and return the logged reason why the service has no keys."""
    issuer = keys.Keys(URL, keys.fetch_from(URL, keys_url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "log", log := structlog.testing.CapturingLogger())
        with pytest.raises(keys.KeysUnavailable):
            await issuer.find("first")
    (line,) = log.calls
    assert len(line.kwargs["reason"]) <= 500
    return line.kwargs["reason"]


async def test_keys_are_found_by_discovery_and_by_their_url(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, documents())
    assert await keys.fetch_from(URL, None)() == KEYS
    assert await keys.fetch_from(URL, f"{URL}/keys")() == KEYS
    assert asked == [f"{URL}/.well-known/openid-configuration", f"{URL}/keys", f"{URL}/keys"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"jwks_uri": "http://issuer.example/keys"}, "not https"),
        ({"jwks_uri": "file:///etc/passwd"}, "not https"),
        ({"issuer": "https://attacker.example"}, "is of the issuer 'https://attacker.example'"),
        ({"issuer": "x" * 10_000}, "is of the issuer"),
        ({"issuer": None}, "is of the issuer"),
    ],
    ids=str,
)
async def test_a_discovery_document_of_somebody_else_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], reason: str
) -> None:
    asked = answering(monkeypatch, documents(**changed))
    assert reason in await refusal()
    assert len(asked) == 1


async def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = {"Location": "https://attacker.example/keys"}
    asked = answering(monkeypatch, lambda _: httpx2.Response(302, headers=moved, stream=httpx2.ByteStream(b"")))
    assert "302" in await refusal(f"{URL}/keys")
    assert asked == [f"{URL}/keys"]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"keys": [*KEYS["keys"], *({"kty": "oct", "k": "x" * 100} for _ in range(80_000))]}).encode(),
        b'{"keys": ' + b"[" * 100_000,
        b"",
        b"<html>",
        b"\xff",
        b"null",
        b'{"keys": {"first": 1}}',
        b'{"keys": "first"}',
        gzip.compress(json.dumps(KEYS).encode()),
    ],
    ids=["10 MB", "nested", "empty", "html", "no UTF-8", "null", "object", "string", "gzip"],
)
async def test_a_document_that_holds_no_keys_is_refused(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    encoding = {"Content-Encoding": "gzip"} if content.startswith(b"\x1f") else {}
    answering(monkeypatch, lambda _: body(content, headers=encoding))
    assert await refusal(f"{URL}/keys")


async def test_no_more_is_read_of_a_large_document_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    async def without_end() -> AsyncGenerator[bytes]:
        while True:
            sent.append(1)
            yield b" " * 1024

    answering(monkeypatch, lambda _: httpx2.Response(200, content=without_end()))
    assert "has more than" in await refusal(f"{URL}/keys")
    assert len(sent) == MAX_BYTES // 1024 + 1


async def test_a_document_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part comes in time for httpx2, which limits only the time between two parts."""

    async def drip() -> AsyncGenerator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    monkeypatch.setattr(issuer_documents, "TIMEOUT_SECONDS", 0.1)
    answering(monkeypatch, lambda _: httpx2.Response(200, content=drip()))
    assert "TimeoutError" in await refusal(f"{URL}/keys")


async def test_the_time_limit_of_a_fetch_begins_after_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod without a free core, the first import of httpx2 and the context of TLS take longer than any issuer."""
    answering(monkeypatch, documents())
    made = httpx2.AsyncClient

    def make(**options: Any) -> httpx2.AsyncClient:
        monkeypatch.setattr(issuer_documents, "TIMEOUT_SECONDS", 60)
        return made(**options)

    monkeypatch.setattr(httpx2, "AsyncClient", make)
    monkeypatch.setattr(issuer_documents, "TIMEOUT_SECONDS", 0)
    assert await keys.fetch_from(URL, f"{URL}/keys")() == KEYS
