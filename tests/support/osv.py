"""The OSV database's API on this machine, with one invented vulnerability."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ID = "GHSA-made-up00-0001"
NEVER = "2027-01-01T00:00:00Z"


@dataclass
class Osv:
    """A stand-in for OSV that runs. `asked` lists the packages of all queries."""

    url: str = ""
    asked: set[str] = field(default_factory=set)


@contextmanager
def serving(vulnerable: str) -> Generator[Osv]:
    """Serve the API, in which one package is vulnerable in every version."""
    osv = Osv()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            names = [query["package"]["name"] for query in queries]
            osv.asked.update(names)
            found = {"vulns": [{"id": ID, "modified": NEVER}]}
            self._answer({"results": [found if name == vulnerable else {} for name in names]})

        def do_GET(self) -> None:
            ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
            affected = [{"package": {"ecosystem": "PyPI", "name": vulnerable}, "ranges": ranges}]
            dates = {"published": NEVER, "modified": NEVER}
            self._answer({"id": ID, "summary": "made up", "affected": affected, "references": [], **dates})

        def _answer(self, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    osv.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield osv
    finally:
        server.shutdown()
        server.server_close()
