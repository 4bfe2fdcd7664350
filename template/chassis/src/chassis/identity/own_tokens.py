"""The tokens with which this service calls others: projected by Kubernetes, or obtained by client credentials."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote_plus

import httpx2

from chassis.identity import issuer_documents
from chassis.identity.keys import FIRST_PAUSE_SECONDS, PAUSE_SECONDS
from chassis.identity.tokens import MAX_TOKEN_BYTES

SPARE_SECONDS = 30
"""How long before its end a token is replaced."""


class TokenUnavailable(httpx2.HTTPError):
    """This service has no token for a call, so the request is not sent. The message names the setting to look at."""


class OwnToken(httpx2.Auth):
    """Send a token of this service with each request to the neighbour, and once another token if the neighbour answers 401.

    `obtain` takes the token that the neighbour has just refused, or an empty text.
    """

    def __init__(self, obtain: Callable[[str], Awaitable[str]]) -> None:
        self._obtain = obtain

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        repeatable = isinstance(request.stream, httpx2.ByteStream)  # an iterator can be sent only once
        token = await self._obtain("")
        request.headers["Authorization"] = f"Bearer {token}"
        answer = yield request
        if answer.status_code == 401 and (other := await self._obtain(token)) != token and repeatable:
            request.headers["Authorization"] = f"Bearer {other}"
            yield request


def from_file(path: Path) -> OwnToken:
    """Read the token for each request, because Kubernetes replaces the file long before the token ends."""

    async def read(_: str) -> str:
        try:
            return _checked(path.read_text().strip())  # noqa: ASYNC240 (a file in memory, which takes microseconds)
        except (OSError, ValueError) as error:
            raise TokenUnavailable(
                f"{path} holds no token ({type(error).__name__}): project a token with this path, as docs/identity.md shows"
            ) from None

    return OwnToken(read)


@lru_cache(maxsize=100)  # for the life of the process, however often a client is made
def from_credentials(issuer: str, client_id: str, secret: str, form: tuple[tuple[str, str], ...]) -> OwnToken:
    """Obtain tokens at the token endpoint of the issuer, by the OAuth client credentials of this service."""
    return OwnToken(Credentials(issuer, client_id, secret, dict(form)).token)


class Credentials:
    """A token, which is replaced shortly before its end, or if a neighbour refuses it. All calls share one fetch."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        secret: str,
        form: dict[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer, self._client_id, self._clock = issuer, client_id, clock
        # RFC 6749, section 2.3.1, encodes both before they are joined.
        self._auth = httpx2.BasicAuth(quote_plus(client_id), quote_plus(secret))
        self._form = {"grant_type": "client_credentials", **form}
        self._token, self._problem = "", ""
        self._fetch_after = self._replace_after = self._ends_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def token(self, refused: str = "") -> str:
        """Return a valid token, and not the refused token if the issuer gives another one. Raises TokenUnavailable."""
        now, is_refused = self._clock(), refused == self._token != ""
        if self._fetching is None and now >= (self._replace_after if is_refused else self._fetch_after):
            self._fetching = asyncio.create_task(self._replace())
        if self._fetching and (is_refused or now >= self._ends_at):
            await asyncio.shield(self._fetching)  # a call that is cancelled must not end the fetch of all others
        if self._clock() >= self._ends_at:
            raise TokenUnavailable(self._problem)
        return self._token

    async def _replace(self) -> None:
        try:
            async with issuer_documents.client() as client:
                url = await issuer_documents.discover(client, self._issuer, "token_endpoint")
                answer = await issuer_documents.read(client, url, "POST", data=self._form, auth=self._auth)
            token, seconds = _checked(answer["access_token"]), int(answer.get("expires_in", 60))
            if seconds <= 0:
                raise ValueError("the token has expired already")
        except Exception as error:  # whatever the issuer answers, the known token stays
            self._problem = (
                f"{self._issuer} gives the client {self._client_id} no token: {str(error)[:500] or type(error).__name__}. "
                "Check OIDC_CLIENT_ID and OIDC_CLIENT_SECRET, and whether the pods reach the issuer"
            )
            self._fetch_after = self._replace_after = self._clock() + FIRST_PAUSE_SECONDS
        else:
            self._token, self._ends_at = token, self._clock() + seconds
            self._fetch_after = self._ends_at - min(SPARE_SECONDS, seconds / 2)
            self._replace_after = (
                self._clock() + PAUSE_SECONDS
            )  # a neighbour that refuses every token must not cause a fetch for each call
        finally:
            self._fetching = None


def _checked(token: str) -> str:
    if not token.isascii() or not token.isprintable() or not 0 < len(token) <= MAX_TOKEN_BYTES:
        raise ValueError("this is no access token")
    return token
