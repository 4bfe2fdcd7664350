"""Stand in for services that are not started: answer from their committed API documents."""

import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from fleet.service.openapi import METHODS, Document
from fleet.up.samples import WRONG, answer, headers, matching

MAX_ANSWER_BYTES = 2**20
MAX_BODY_BYTES = 2**20


@dataclass(frozen=True)
class Stub:
    """A service that answers from its API document. Without a document, `missing` is the reason."""

    name: str
    alias: str
    """The name in fleet.toml."""
    origin: str = ""
    """Where the document comes from, for people."""
    document: Document | None = field(default=None, compare=False)
    missing: str = ""

    def reply(self, method: str, path: str, prefer: str = "") -> tuple[int, dict[str, str], bytes]:
        """Answer a request. `prefer` is its header Prefer: `code=404` asks for the answer with that status."""
        if self.document is None:
            return self._problem(501, self.missing)
        operation, others = matching(self.document, method.lower(), unquote(urlsplit(path).path))
        if operation is None:
            has = f"it has {', '.join(others)} there" if others else "it has no such path"
            return self._problem(405 if others else 404, f"{method} {path[:200]} is not in the API document: {has}")
        wanted = re.search(r"\bcode=([2-5][0-9]{2})\b", prefer)
        try:
            status, media, content = answer(self.document, operation, wanted[1] if wanted else "")
            body = content if isinstance(content, bytes) else _encode(content) if media else b""
            found = headers(self.document, operation, status)
        except (*WRONG, RecursionError) as error:
            return self._problem(501, f"no answer can be made for {operation}: {error}")
        return status, found | ({"Content-Type": media} if media else {}), body

    def _problem(self, status: int, detail: str) -> tuple[int, dict[str, str], bytes]:
        problem = {"type": "about:blank", "title": "Stub", "status": status, "code": "stub"}
        body = json.dumps(problem | {"detail": f"the stub of {self.name}: {detail}"}).encode()
        return status, {"Content-Type": "application/problem+json"}, body

    @contextmanager
    def running(self, port: int) -> Generator[None]:
        """Answer on this port from a thread. Raises OSError."""
        methods = {f"do_{method.upper()}": _Handler.answer for method in METHODS}
        server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"stub": self, **methods}))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _encode(content: Any) -> bytes:
    """Write JSON. Raises ValueError for a long answer: one long example may be in it many times."""
    parts, size = [], 0
    for part in json.JSONEncoder(allow_nan=False, default=str).iterencode(content):
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise ValueError(f"it would have more than {MAX_ANSWER_BYTES >> 20} MiB")
    return "".join(parts).encode()


class _Handler(BaseHTTPRequestHandler):
    stub: Stub
    timeout = 30

    def answer(self) -> None:
        length = self.headers.get("Content-Length", "")
        if re.fullmatch("[0-9]{1,15}", length):  # an unread body would reset the connection before the answer
            self.rfile.read(min(int(length), MAX_BODY_BYTES))
        status, found, body = self.stub.reply(self.command, self.path, self.headers.get("Prefer", ""))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | found | {"X-Stub": self.stub.name}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing, because the terminal belongs to `fleet up`."""
