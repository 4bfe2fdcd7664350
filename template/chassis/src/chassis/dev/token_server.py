"""A server of access tokens on loopback, whose key is made at its start and never stored. It needs no other module of the chassis."""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote_plus

from joserfc import jwt
from joserfc.jwk import ECKey

LIFETIME_SECONDS = 24 * 60 * 60
MAX_FORM_BYTES = 64 * 1024


class TokenServer:
    """Everybody who reaches the server obtains any token, so it listens on loopback alone.

    A request for a token may name its `audience`, `subject` and `scope`. Without a scope the token has the scopes that `scopes`
    returns for its audience and its client. The subject of a client that shows its OAuth credentials is the client's name.
    """

    def __init__(
        self, audience: str, *, path: str, port: int = 0, scopes: Callable[[str, str], Iterable[str]] = lambda *_: ()
    ) -> None:
        self.audience, self._path, self._scopes = audience, path, scopes
        self._key = ECKey.generate_key("P-256", auto_kid=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}{path}"

    def token(self, subject: str = "developer", *, scopes: Iterable[str] = (), **claims: Any) -> str:
        """Sign a token. `claims` replace or add claims."""
        now = int(time.time())
        granted = {"scope": " ".join(sorted(scopes)), "aud": self.audience, "client_id": "development"}
        times = {"iat": now, "exp": now + LIFETIME_SECONDS}
        header = {"alg": "ES256", "kid": self._key.kid, "typ": "at+jwt"}
        return jwt.encode(header, {"iss": self.url, "sub": subject, **granted, **times, **claims}, self._key)

    def answer(self, path: str, form: str = "", authorization: str = "") -> dict[str, Any] | None:
        """Answer a request for one of the issuer's documents, or for a token."""
        match path.removeprefix(self._path):
            case "/.well-known/openid-configuration":
                return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", "token_endpoint": f"{self.url}/token"}
            case "/keys":
                return {"keys": [self._key.as_dict(private=False)]}
            case "/token":
                values = {name: found[-1] for name, found in parse_qs(form).items()}
                token = self._wanted(values, _client(authorization))
                return {"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME_SECONDS}
        return None

    def _wanted(self, values: dict[str, str], client: str) -> str:
        audience = values.get("audience", self.audience)
        scopes = values["scope"].split() if "scope" in values else self._scopes(audience, client)
        claims = {"aud": audience} | ({"client_id": client} if client else {})
        return self.token(values.get("subject", client or "developer"), scopes=scopes, **claims)

    @contextmanager
    def running(self) -> Generator[Self]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _client(authorization: str) -> str:
    """Return the name in the credentials of a client (RFC 6749, section 2.3.1); empty if there are none."""
    try:
        scheme, _, encoded = authorization.partition(" ")
        name = base64.b64decode(encoded).decode().partition(":")[0]
    except ValueError:
        return ""
    return unquote_plus(name) if scheme.lower() == "basic" else ""


def _handler_of(issuer: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(issuer.answer(self.path) if not self.path.endswith("/token") else None)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            known = int(length) if re.fullmatch("[0-9]{1,15}", length) else 0
            form = self.rfile.read(min(known, MAX_FORM_BYTES)).decode(errors="replace")
            authorization = self.headers.get("Authorization", "")
            self._answer(issuer.answer(self.path, form, authorization) if self.path.endswith("/token") else None)

        def _answer(self, content: dict[str, Any] | None) -> None:
            # A page in a browser must obtain no token, by whatever name it reaches loopback.
            if self.headers.get("Host") != f"127.0.0.1:{self.server.server_port}" or self.headers.get("Origin"):  # ty: ignore[missing-attribute]
                content = None
            body = json.dumps(content or {}).encode()
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Write nothing, because the terminal belongs to the service."""

    return Handler
