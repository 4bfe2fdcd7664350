"""Serve the page and its data on the loopback interface, and receive spans, metrics and log lines.

All paths begin with a token, so that neither other users of the machine nor other websites can read or send anything.
"""

import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from chassis.dev.viewer import log_copy, log_lines
from chassis.dev.viewer.gauges import Gauges
from chassis.dev.viewer.product import Product
from chassis.dev.viewer.routes import Routes
from chassis.dev.viewer.store import Store

MAX_THREADS = 100
METRICS_MILLISECONDS = 5000
"""How often a service sends its gauges. Production sends them each minute."""


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
        """Return the settings that send a service's spans and log lines here, past the proxy of this machine.

        A program that reads the output of the service, and calls `add_lines`, leaves out the setting `log_copy.ADDRESS`.
        """
        no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": str(METRICS_MILLISECONDS),
            log_copy.ADDRESS: f"{self.url}logs?service={service}",
            **dict.fromkeys(("no_proxy", "NO_PROXY"), f"{no_proxy},127.0.0.1" if no_proxy else "127.0.0.1"),
        }

    def add_lines(self, service: str, lines: Iterable[bytes], stream: str = "stdout") -> None:
        """Keep lines that a service has written to this stream. Any thread may call this."""
        self.store.add_lines([log_lines.read(line, service, stream) for line in lines if line.strip()])

    def changed(self) -> None:
        """Have the pages ask for the states of the services again."""
        self.store.touch()


@contextmanager
def running(folder: Path, *, product: Product | None = None, port: int = 0, keep: bool = False) -> Generator[Viewer]:
    """Run a viewer in threads of this process, on this port, or on a free port if it is taken or 0.

    Its data is in `folder`: empty at the start and deleted at the end, unless `keep`. With a product the page also shows
    and controls its services.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = secrets.token_urlsafe(16)
    store = Store(folder / "viewer.db", keep=keep)
    command = product.command if product else "make dev"
    facts = {"store": store, "token": token, "started_by": command, "product": product, "gauges": Gauges()}
    server = _listen(port, type("Handler", (Routes,), facts))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Viewer(f"http://127.0.0.1:{server.server_port}/{token}/", store)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        store.close()


def _listen(port: int, handler: type[Routes]) -> "_Server":
    try:
        return _Server(("127.0.0.1", port), handler)
    except OSError:
        return _Server(("127.0.0.1", 0), handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return threading.active_count() < MAX_THREADS

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away or was too slow, or a request during the stop.
        if not isinstance(sys.exception(), OSError | sqlite3.ProgrammingError):
            super().handle_error(request, client_address)
