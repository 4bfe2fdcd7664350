"""One HTTP request and its answer: who may ask, how large a body may be, what a browser may do with the answer."""

import json
import re
import secrets
import zlib
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The largest export, before and after decompression: the chassis' exporter sends at most 512 spans at once."""

IDLE_SECONDS = 30
"""How long a client may take for its request."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


Table = tuple[Mapping[str, Callable[[], None]], Mapping[str, Callable[..., None]]]
"""The functions that answer requests: by path, and by a pattern of paths, whose groups become arguments."""


class Refused(Exception):
    """A refusal: the HTTP status, and a sentence for the client."""


class Exchange(BaseHTTPRequestHandler):
    """A request. HTTP/1.0, as the base class has it: each request has a connection of its own."""

    token: str
    started_by: str
    """The command that printed the address of the page."""
    timeout = IDLE_SECONDS

    def reads(self) -> Table:
        raise NotImplementedError

    def writes(self) -> Table:
        raise NotImplementedError

    def do_GET(self) -> None:
        self._answer(*self.reads())

    def do_POST(self) -> None:
        self._answer(*self.writes())

    def _answer(self, routes: Mapping[str, Callable[[], None]], patterns: Mapping[str, Callable[..., None]]) -> None:
        try:
            path = self.checked_path()
            if route := routes.get(path):
                return route()
            for pattern, action in patterns.items():
                if found := re.fullmatch(pattern, path):
                    return action(*found.groups())
            raise Refused(404, "There is nothing at this address.")
        except Refused as refused:
            status, reason = refused.args
            self.send(f"{reason}\n", "text/plain", status)

    def checked_path(self) -> str:
        """Return the path behind the token, if the request comes from our page or from a program of this user."""
        hosts = [f"{name}:{self.connection.getsockname()[1]}" for name in ("127.0.0.1", "localhost")]
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host not in hosts or origin not in (None, f"http://{host}"):
            raise Refused(
                403, f"The viewer answers only its own page, on the address that `{self.started_by}` printed."
            )
        token, _, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise Refused(
                404, f"There is nothing at this address. `{self.started_by}` printed the address of the viewer."
            )
        return path

    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.path.partition("?")[2]))

    def body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,15}", length):
            raise Refused(411, "The request has no valid Content-Length.")
        if int(length) > MAX_BODY_BYTES:
            raise Refused(413, f"The body has more than {MAX_BODY_BYTES} bytes.")
        body = self.rfile.read(int(length))
        return _decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def send_json(self, answer: Any) -> None:
        self.send(json.dumps(answer, ensure_ascii=False), "application/json")

    def send(self, text: str, kind: str, status: int = 200, **headers: str) -> None:
        self.send_head(kind, status, **headers)
        self.wfile.write(text.encode(errors="replace"))  # text of a service may hold a lone surrogate

    def send_head(self, kind: str, status: int, **headers: str) -> None:
        self.send_response(status)
        content = {"Content-Type": f"{kind}; charset=utf-8" if kind.startswith("text/") else kind}
        for name, value in (HEADERS | content | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the page shows what arrives."""


def _decompress(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        plain = decompressor.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise Refused(400, "The body is not gzip, as its Content-Encoding says.") from None
    if len(plain) > MAX_BODY_BYTES:
        raise Refused(413, f"The body has more than {MAX_BODY_BYTES} bytes after decompression.")
    return plain
