"""The public keys of an issuer: fetched when they are needed, and kept while the issuer is down."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from chassis.identity import issuer_documents

PAUSE_SECONDS = 30
"""The least time between two fetches once there are keys: callers can name unknown keys as often as they like."""
FIRST_PAUSE_SECONDS = 1
"""The least time between two fetches while there has never been a key."""
MAX_AGE_SECONDS = 600
"""The age at which keys are fetched again in the background, so that a key that the issuer revokes is forgotten."""

MIN_RSA_BITS = 2048  # RFC 7518, section 3.3

KINDS = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
"""The kinds of keys that are accepted. All are asymmetric: a symmetric key would let every service sign tokens."""

log = structlog.get_logger()

Fetch = Callable[[], Awaitable[dict[str, Any]]]


class KeysUnavailable(Exception):
    """No key of the issuer has ever been fetched."""


class Keys:
    """The keys of one issuer. All callers share one fetch.

    `revision` counts how often the keys have changed, so that nobody trusts a token whose key has gone.
    """

    def __init__(self, issuer: str, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer, self._fetch, self._clock = issuer, fetch, clock
        self._document: list[Any] = []
        self._by_id: dict[str | None, Key] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._fetch_after = float("-inf")
        self._stale_after = float("inf")
        self.revision = 0

    async def find(self, key_id: str | None) -> Key | None:
        """Return the key of that id; for a token without an id, the only key. Raises KeysUnavailable."""
        await self.refresh_if_old()
        if (key := self._find(key_id)) is None and (fetching := self._start_fetch()):
            await asyncio.shield(fetching)  # a caller that disconnects must not end the fetch of all others
            key = self._find(key_id)
        if not self._by_id:
            raise KeysUnavailable
        return key

    async def refresh_if_old(self) -> None:
        """Fetch old keys again, in the background. Wait if there was no fetch for long, as in a pod that was idle."""
        if (now := self._clock()) > self._stale_after:
            fetching = self._start_fetch()
            if fetching and now > self._fetch_after + MAX_AGE_SECONDS:
                await asyncio.shield(fetching)

    def _find(self, key_id: str | None) -> Key | None:
        if key_id is None and len(self._by_id) == 1:
            return next(iter(self._by_id.values()))
        return self._by_id.get(key_id)

    def _start_fetch(self) -> asyncio.Task[None] | None:
        if self._fetching is None and self._clock() >= self._fetch_after:
            self._fetching = asyncio.create_task(self._replace())
        return self._fetching

    async def _replace(self) -> None:
        try:
            document = (await self._fetch())["keys"]
            by_id = {key.kid: key for key in map(_usable, document) if key is not None}
            if not by_id:
                raise ValueError("the issuer publishes no RSA, EC or OKP key that may verify signatures")
        except Exception as error:  # whatever an issuer answers, the known keys stay
            log.warning("keys_not_fetched", issuer=self._issuer, reason=f"{type(error).__name__}: {error}"[:500])
        else:
            if document != self._document:
                self._document, self._by_id, self.revision = document, by_id, self.revision + 1
            self._stale_after = self._clock() + MAX_AGE_SECONDS
        finally:
            self._fetch_after = self._clock() + (PAUSE_SECONDS if self._by_id else FIRST_PAUSE_SECONDS)
            self._fetching = None


def _usable(published: dict[str, Any]) -> Key | None:
    kind = KINDS.get(published.get("kty", ""))
    if kind is None or published.get("use", "sig") != "sig":
        return None
    try:
        key = kind.import_key({name: value for name, value in published.items() if not name.startswith("x5")})
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS else key


def fetch_from(issuer: str, keys_url: str | None) -> Fetch:
    """Make the function that fetches the keys from `keys_url`, or else from the URL in the issuer's discovery document."""

    async def fetch() -> dict[str, Any]:
        async with issuer_documents.client() as client:
            return await issuer_documents.read(
                client, keys_url or await issuer_documents.discover(client, issuer, "jwks_uri")
            )

    return fetch
