"""Read the documents of an issuer: discovery, keys, and tokens for this service itself."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

TIMEOUT_SECONDS = 2
"""The time limit of one fetch from an issuer."""
MAX_BYTES = 256 * 1024
"""The largest document of an issuer. The keys of the large providers are a tenth of that."""

_CODE = re.compile(rb'"error"\s*:\s*"([a-z_]{1,40})"')  # RFC 6749, section 5.2


@asynccontextmanager
async def client() -> "AsyncGenerator[httpx2.AsyncClient]":
    """Open a client for one fetch, which takes TIMEOUT_SECONDS at most. Raises TimeoutError.

    The limit does not cover the import and the making of the client, which take seconds in a pod without a free core.
    """
    import httpx2  # imported here, because only the first token needs HTTPX2

    # A compressed document could be of any size, so the client accepts none.
    async with (
        httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, headers={"Accept-Encoding": "identity"}) as client,
        asyncio.timeout(TIMEOUT_SECONDS),
    ):
        yield client


async def discover(client: "httpx2.AsyncClient", issuer: str, name: str) -> str:
    """Return a URL of the issuer's discovery document."""
    document = await read(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if document["issuer"] != issuer:
        raise ValueError(f"the discovery document is of the issuer {document['issuer']!r}: set OIDC_ISSUER to that")
    if issuer.startswith("https:") and not document[name].startswith("https:"):
        raise ValueError(f"the discovery document names a {name} that is not https://")
    return document[name]


async def read(client: "httpx2.AsyncClient", url: str, method: str = "GET", **options: Any) -> dict[str, Any]:
    """Return a JSON document. Raises httpx2.HTTPError or ValueError."""
    async with client.stream(method, url, **options) as answer:
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > MAX_BYTES:
                raise ValueError(f"{url} has more than {MAX_BYTES} bytes")
    if not answer.is_success:
        code = _CODE.search(body)
        raise ValueError(f"{url} answers {answer.status_code} {code[1].decode() if code else ''}".rstrip())
    return json.loads(body)
