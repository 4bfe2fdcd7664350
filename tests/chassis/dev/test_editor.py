"""`make dev ARGS=--debug`: the debugger of an editor stops at a breakpoint, also after a reload."""

import importlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from chassis.dev import server
from chassis.service import Service

from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

LIMIT_SECONDS = 60
PACKAGE = "stopped_by_an_editor"
SOURCE = """\
def answer() -> bytes:
    said = b"no breakpoint"
    return said


def create_app():
    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        body = answer()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return application
"""
STOP = "    return said\n"


class Editor:
    """A client of the Debug Adapter Protocol, as far as an editor needs it to stop at one line."""

    def __init__(self, port: int, file: Path, **attach: Any) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS)
        self._stream = self._socket.makefile("rwb")
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self.ask("initialize", adapterID="test", pathFormat="path")
        attached = self._send("attach", {"justMyCode": True, **attach})
        self.event("initialized")
        text = file.read_text()
        line = text[: text.index(STOP)].count("\n") + 1
        self.ask("setBreakpoints", source={"path": str(file)}, breakpoints=[{"line": line}])
        self.ask("configurationDone")
        self._answer(attached)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self._answer(self._send(command, arguments))

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event, and return its body."""
        while True:
            for event in self._events:
                if event["event"] == name:
                    self._events.remove(event)
                    return event.get("body", {})
            self._read()

    def change_and_continue(self, expression: str, value: str) -> tuple[str, int]:
        """Wait for a stop, change a variable, continue, and return the place of the stop."""
        thread = self.event("stopped")["threadId"]
        frame = self.ask("stackTrace", threadId=thread)["stackFrames"][0]
        self.ask("setExpression", expression=expression, value=value, frameId=frame["id"])
        self.ask("continue", threadId=thread)
        return frame["name"], frame["line"]

    def _send(self, command: str, arguments: dict[str, Any]) -> int:
        self._number += 1
        message = {"seq": self._number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self._stream.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._stream.flush()
        return self._number

    def _answer(self, number: int) -> dict[str, Any]:
        while (message := self._read()).get("request_seq") != number:
            pass
        assert message["success"], message
        return message.get("body", {})

    def _read(self) -> dict[str, Any]:
        length = int(self._stream.readline().partition(b":")[2])
        self._stream.readline()
        message = json.loads(self._stream.read(length))
        if message["type"] == "event":
            self._events.append(message)
        return message


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / PACKAGE / "main.py"
    file.parent.mkdir()
    (file.parent / "__init__.py").touch()
    file.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return file


@pytest.fixture
def debugged(source: Path) -> Iterator[tuple[str, int]]:
    """The address of a server that waits for an editor, and the editor's port."""
    service = cast("Service", SimpleNamespace(package=importlib.import_module(PACKAGE)))
    port = server._free_debug_port()
    with server._listen("127.0.0.1", 0) as listener:
        process = server._spawn(service, listener, {}, port)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", port
        finally:
            process.stop()


def attached(port: int, file: Path) -> Editor:
    """Attach as soon as debugpy listens."""

    def attach() -> Editor | None:
        with suppress(ConnectionRefusedError):
            return Editor(port, file)

    return wait_until(attach, seconds=LIMIT_SECONDS)


def follow(parent: Editor, port: int, file: Path, stops: SimpleQueue[tuple[str, int]]) -> None:
    """Attach to each new process, as an editor does: the servers, and a helper of Python that never stops."""

    def attach(process: dict[str, Any]) -> None:
        with suppress(OSError, ValueError):  # the process has ended
            editor = Editor(port, file, **process)
            while True:
                stops.put(editor.change_and_continue("said", "b'from the editor'"))

    with suppress(OSError, ValueError):
        while True:
            Thread(target=attach, args=(parent.event("debugpyAttach"),), daemon=True).start()


def answered(url: str) -> str:
    """Ask until a server answers: a reload closes connections."""

    def ask() -> str | None:
        with suppress(httpx2.TransportError):
            return httpx2.get(url, timeout=LIMIT_SECONDS, trust_env=False).text

    return wait_until(ask, seconds=LIMIT_SECONDS)


def test_an_editor_stops_at_a_breakpoint_before_and_after_a_reload(source: Path, debugged: tuple[str, int]) -> None:
    url, port = debugged
    stops = SimpleQueue[tuple[str, int]]()
    Thread(target=follow, args=(attached(port, source), port, source, stops), daemon=True).start()
    with ThreadPoolExecutor(1) as client:

        def stopped_at(line: int) -> bool:
            answer = client.submit(answered, url)
            stop = stops.get(timeout=LIMIT_SECONDS)
            assert answer.result(LIMIT_SECONDS) == "from the editor"
            return stop == ("answer", line)

        assert stopped_at(3)
        with pytest.raises(OSError):  # debugpy listens on no other address of this machine
            socket.create_connection(("127.0.0.2", port), timeout=1)
        source.write_text("\n" + SOURCE)
        wait_until(lambda: stopped_at(4), seconds=LIMIT_SECONDS)  # the server from before the reload may still run
