"""Serve the page and its data on the loopback interface, and receive spans and log lines.

All paths begin with a token, so that neither other users of the machine nor other websites can read or send anything.
"""

import json
import os
import re
import secrets
import sqlite3
import sys
import threading
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.message import DecodeError

from chassis.dev.viewer import log_copy, log_lines, otlp
from chassis.dev.viewer.pages import trace_as_json, trace_as_text
from chassis.dev.viewer.store import Store

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The largest export, before and after decompression: the chassis' exporter sends at most 512 spans at once."""

MAX_LINE_BYTES = 64 * 1024
MAX_THREADS = 100
IDLE_SECONDS = 30
"""How long a client may take for its request."""

CHANGES_PER_SECOND = 4
"""How often a page hears of changes."""

FILES = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Viewer:
    """A viewer that runs."""

    url: str
    """The page, with the token. It is the base URL for OTLP as well."""
    store: Store

    @property
    def endpoint(self) -> str:
        """The value for OTEL_EXPORTER_OTLP_ENDPOINT."""
        return self.url.rstrip("/")

    def settings_for(self, service: str) -> dict[str, str]:
        """Return the settings that send a service's spans and log lines here, past the proxy of this machine."""
        no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            log_copy.ADDRESS: f"{self.url}logs?service={service}",
            **dict.fromkeys(("no_proxy", "NO_PROXY"), f"{no_proxy},127.0.0.1" if no_proxy else "127.0.0.1"),
        }


@contextmanager
def running(folder: Path) -> Generator[Viewer]:
    """Run a viewer on a free port, in threads of this process. Its data is in `folder`, and empty at the start."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    store, token = Store(folder / "viewer.db"), secrets.token_urlsafe(16)
    server = _Server(("127.0.0.1", 0), _handler_for(store, token))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Viewer(f"http://127.0.0.1:{server.server_port}/{token}/", store)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        store.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return threading.active_count() < MAX_THREADS

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away or was too slow, or a request during the stop.
        if not isinstance(sys.exception(), OSError | sqlite3.ProgrammingError):
            super().handle_error(request, client_address)


class _Refused(Exception):
    """The status and a sentence for the client."""


def _handler_for(store: Store, token: str) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"store": store, "token": token})


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0, as the base class has it: each request has a connection of its own.
    store: Store
    token: str
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        self._answer({"events": self._events}, self._get)

    def do_POST(self) -> None:
        self._answer({"v1/traces": self._take_spans, "v1/metrics": self._ignore, "logs": self._take_lines}, None)

    def _answer(self, routes: dict[str, Callable[[], None]], other: Callable[[str], None] | None) -> None:
        try:
            path = self._checked_path()
            if route := routes.get(path):
                route()
            elif other:
                other(path)
            else:
                raise _Refused(404, "There is nothing at this address.")
        except _Refused as refused:
            status, reason = refused.args
            self._send(f"{reason}\n", "text/plain", status)

    def _checked_path(self) -> str:
        """Return the path behind the token, if the request comes from our page or from a program of this user."""
        hosts = [f"{name}:{self.connection.getsockname()[1]}" for name in ("127.0.0.1", "localhost")]
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host not in hosts or origin not in (None, f"http://{host}"):
            raise _Refused(403, "The viewer answers only its own page, on the address that `make dev` printed.")
        token, _, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise _Refused(404, "There is nothing at this address. `make dev` printed the address of the viewer.")
        return path

    def _get(self, path: str) -> None:
        asked = self._query()
        if path in FILES:
            self._send(Path(__file__).with_name(path or "page.html").read_text(), FILES[path])
        elif found := re.fullmatch(r"traces/([0-9a-f]{32})(\.txt)?", path):
            self._trace(found[1], as_text=bool(found[2]))
        elif path == "traces":
            self._send_json(self.store.traces(**_wanted(asked)))
        elif path == "logs":
            known = {name: asked[name] for name in ("text", "level", "trace") if name in asked}
            self._send_json({"lines": self.store.lines(**known)})
        elif path == "find":
            self._send_json({"trace": self.store.trace_of(asked.get("id", ""))})
        else:
            raise _Refused(404, "There is nothing at this address.")

    def _trace(self, trace_id: str, *, as_text: bool) -> None:
        size = f'"{self.store.size(trace_id)}"'
        if self.headers.get("If-None-Match") == size:
            self._send("", "application/json", 304)
        elif not (entries := self.store.entries(trace_id)):
            raise _Refused(404, f"The viewer has no trace {trace_id}.")
        elif as_text:
            self._send(trace_as_text(entries) + "\n", "text/plain")
        else:
            self._send(trace_as_json(trace_id, entries), "application/json", ETag=size)

    def _events(self) -> None:
        """Tell the page of each change until it goes away (server-sent events)."""
        self._send_head("text/event-stream", 200)
        seen = -2
        while (version := self.store.wait(seen, timeout=15)) >= 0:
            self.wfile.write(f"data: {version}\n\n".encode() if version != seen else b": still here\n\n")
            seen = version
            threading.Event().wait(1 / CHANGES_PER_SECOND)

    def _take_spans(self) -> None:
        try:
            self.store.add_spans([span for _, spans in otlp.batches(self._body()) for span in spans])
        except DecodeError:
            raise _Refused(400, "The body is not an ExportTraceServiceRequest in protobuf.") from None
        self._send("", "application/x-protobuf")

    def _ignore(self) -> None:
        self._body()
        self._send("", "application/x-protobuf")

    def _take_lines(self) -> None:
        """Store lines as they come, until the process that logs them closes the connection."""
        service = self._query().get("service", "")
        self.connection.settimeout(None)
        rest = b""
        while received := self.rfile.read1(MAX_LINE_BYTES):
            *whole, rest = (rest + received).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                whole, rest = [*whole, rest], b""
            self.store.add_lines([log_lines.read(line, service) for line in whole if line.strip()])
        if rest:
            self.store.add_lines([log_lines.read(rest, service)])

    def _query(self) -> dict[str, str]:
        return dict(parse_qsl(self.path.partition("?")[2]))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,15}", length):
            raise _Refused(411, "The request has no valid Content-Length.")
        if int(length) > MAX_BODY_BYTES:
            raise _Refused(413, f"The body has more than {MAX_BODY_BYTES} bytes.")
        body = self.rfile.read(int(length))
        return _decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send_json(self, answer: Any) -> None:
        self._send(json.dumps(answer, ensure_ascii=False), "application/json")

    def _send(self, text: str, kind: str, status: int = 200, **headers: str) -> None:
        self._send_head(kind, status, **headers)
        self.wfile.write(text.encode())

    def _send_head(self, kind: str, status: int, **headers: str) -> None:
        self.send_response(status)
        content = {"Content-Type": f"{kind}; charset=utf-8" if kind.startswith("text/") else kind}
        for name, value in (HEADERS | content | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the page shows what arrives."""


def _wanted(asked: dict[str, str]) -> dict[str, Any]:
    """Read the filters of the list of traces. A duration that is no number filters nothing."""
    wanted: dict[str, Any] = {name: asked[name] for name in ("text", "service", "status") if name in asked}
    duration = re.fullmatch(r"\d{1,9}(\.\d+)?", asked.get("at_least_ms", ""))
    return wanted | {
        "failed": asked.get("failed") == "true",
        "at_least": int(float(duration[0]) * 1e6) if duration else 0,
    }


def _decompress(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        plain = decompressor.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise _Refused(400, "The body is not gzip, as its Content-Encoding says.") from None
    if len(plain) > MAX_BODY_BYTES:
        raise _Refused(413, f"The body has more than {MAX_BODY_BYTES} bytes after decompression.")
    return plain
