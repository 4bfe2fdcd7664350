"""The addresses of the viewer: the page, its data, what services send, and the actions on services."""

import json
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError

from chassis.dev.viewer import log_lines, otlp, panels
from chassis.dev.viewer.exchange import Exchange, Refused, Table
from chassis.dev.viewer.gauges import Gauges
from chassis.dev.viewer.pages import trace_as_json, trace_as_text
from chassis.dev.viewer.panels import PARKED, Panel
from chassis.dev.viewer.product import ACTIONS, Product, RefusedAction
from chassis.dev.viewer.store import Store
from chassis.discovery import modules_in

MAX_LINE_BYTES = 64 * 1024
CHANGES_PER_SECOND = 4
"""The most notices of changes that a page gets in a second."""

DEFAULT_SECONDS = 300
"""The time that the map covers if a reader does not choose another."""

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = {
    path.name: path
    for folder in ("page", "panels")
    for path in Path(__file__).with_name(folder).iterdir()
    if path.suffix in KINDS
}
OPTIONAL: dict[str, Panel] = {module.__name__.rpartition(".")[2]: module.PANEL for module in modules_in(panels)}
"""The panels that only some services have."""
PANELS = {"parked": PARKED} | OPTIONAL


class Routes(Exchange):
    store: Store
    gauges: Gauges
    product: Product | None

    def reads(self) -> Table:
        return (
            {
                "events": self._events,
                "traces": lambda: self.send_json(self.store.traces(**_wanted(self.query()))),
                "logs": self._logs,
                "find": lambda: self.send_json({"trace": self.store.trace_of(self.query().get("id", ""))}),
                "product": self._product,
                "edges": self._edges,
                "gauges": lambda: self.send_json(self.gauges.newest()),
            },
            {r"traces/([0-9a-f]{32})(\.txt)?": self._trace, "services/([^/]+)/([a-z]+)": self._list, ".*": self._file},
        )

    def writes(self) -> Table:
        return (
            {"v1/traces": self._take_spans, "v1/metrics": self._take_metrics, "logs": self._take_lines},
            {
                "services/([^/]+)/([a-z]+)": self._act,
                "services/([^/]+)/([a-z]+)/([a-z-]+)/([0-9a-f-]{36})": self._decide,
            },
        )

    # The page and its data.

    def _file(self) -> None:
        file = FILES.get(self.checked_path() or "page.html")
        if file is None:
            raise Refused(404, "There is nothing at this address.")
        self.send(file.read_text(), KINDS[file.suffix])

    def _logs(self) -> None:
        asked = self.query()
        known = {name: asked[name] for name in ("text", "level", "trace", "service") if name in asked}
        self.send_json({"lines": self.store.lines(**known)})

    def _trace(self, trace_id: str, suffix: str | None) -> None:
        size = f'"{self.store.size(trace_id)}"'
        if self.headers.get("If-None-Match") == size:
            self.send("", "application/json", 304)
        elif not (entries := self.store.entries(trace_id)):
            raise Refused(404, f"The viewer has no trace {trace_id}.")
        elif suffix:
            self.send(trace_as_text(entries) + "\n", "text/plain")
        else:
            self.send(trace_as_json(trace_id, entries), "application/json", ETag=size)

    def _product(self) -> None:
        states = None if self.product is None else [asdict(state) for state in self.product.services()]
        seen = self.store.services()
        self.send_json({"command": self.started_by, "services": states, "seen": seen, "panels": list(OPTIONAL)})

    def _edges(self) -> None:
        asked = re.fullmatch("[0-9]{1,6}", self.query().get("seconds", ""))
        seconds = int(asked[0]) if asked else DEFAULT_SECONDS
        states = self.product.services() if self.product else ()
        peers = {urlsplit(state.url).netloc: state.name for state in states if state.url}
        declared = self.product.declared() if self.product else None
        self.send_json(self.store.edges(seconds, peers, declared))

    def _events(self) -> None:
        """Tell the page of each change until it goes away (server-sent events)."""
        self.send_head("text/event-stream", 200)
        seen = -2
        while (version := self.store.wait(seen, timeout=15)) >= 0:
            self.wfile.write(f"data: {version}\n\n".encode() if version != seen else b": still here\n\n")
            seen = version
            threading.Event().wait(1 / CHANGES_PER_SECOND)

    # The exports and log lines of services.

    def _take_spans(self) -> None:
        try:
            self.store.add_spans([span for _, spans in otlp.batches(self.body()) for span in spans])
        except DecodeError:
            raise Refused(400, "The body is not an ExportTraceServiceRequest in protobuf.") from None
        self.send("", "application/x-protobuf")

    def _take_metrics(self) -> None:
        try:
            if self.gauges.add(self.body()):
                self.store.touch()
        except DecodeError:
            raise Refused(400, "The body is not an ExportMetricsServiceRequest in protobuf.") from None
        self.send("", "application/x-protobuf")

    def _take_lines(self) -> None:
        """Store lines as they come, until the process that logs them closes the connection."""
        service = self.query().get("service", "")
        self.connection.settimeout(None)
        rest = b""
        while received := self.rfile.read1(MAX_LINE_BYTES):
            *whole, rest = (rest + received).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                whole, rest = [*whole, rest], b""
            self.store.add_lines([log_lines.read(line, service) for line in whole if line.strip()])
        if rest:
            self.store.add_lines([log_lines.read(rest, service)])

    # Actions on services.

    def _act(self, service: str, action: str) -> None:
        if action not in ACTIONS:
            raise Refused(404, f"{action} is no action on a service. Actions are {', '.join(ACTIONS)}.")
        self._ask(service, lambda product: product.act(service, action))
        self._done()

    def _list(self, service: str, name: str) -> None:
        command = _panel(name).listing
        answer = self._ask(service, lambda product: product.run(service, *command))
        try:
            entries = json.loads(answer)
        except ValueError:
            asked = f"`python -m {service} {' '.join(command)}`"
            raise Refused(502, f"{asked} printed something else than JSON. Run the command to see what.") from None
        self.send_json(entries)

    def _decide(self, service: str, name: str, decision: str, entry_id: str) -> None:
        panel = _panel(name)
        if decision not in panel.decisions:
            known = ", ".join(panel.decisions)
            raise Refused(404, f"{decision} is no action on {panel.entry}. Actions are {known}.")
        try:
            wanted = str(uuid.UUID(entry_id))
        except ValueError:
            raise Refused(404, f"{entry_id} is not the id of {panel.entry}, which is a UUID.") from None
        self._done(self._ask(service, lambda product: product.run(service, *panel.decisions[decision], wanted)))

    def _ask(self, service: str, question: Callable[[Product], Any]) -> Any:
        if self.product is None or service not in {state.name for state in self.product.services()}:
            raise Refused(404, f"`{self.started_by}` runs no service {service}.")
        try:
            return question(self.product)
        except RefusedAction as refused:
            raise Refused(409, str(refused)) from None

    def _done(self, answer: str = "") -> None:
        self.store.touch()
        self.send(answer, "text/plain")


def _panel(name: str) -> Panel:
    if name not in PANELS:
        raise Refused(404, "There is nothing at this address.")
    return PANELS[name]


def _wanted(asked: dict[str, str]) -> dict[str, Any]:
    """Read the filters of the list of traces. A duration that is no number filters nothing."""
    wanted: dict[str, Any] = {name: asked[name] for name in ("text", "service", "status") if name in asked}
    duration = re.fullmatch(r"\d{1,9}(\.\d+)?", asked.get("at_least_ms", ""))
    return wanted | {
        "failed": asked.get("failed") == "true",
        "at_least": int(float(duration[0]) * 1e6) if duration else 0,
    }
