"""A link that is cut passes nothing on, not even for a connection that is just being made."""

import socket
import threading

import pytest

from tests.support import link as links


def test_a_cut_ends_a_connection_that_is_just_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, connecting, cut = socket.create_connection, threading.Event(), threading.Event()

    def connect_slowly(target: tuple[str, int]) -> socket.socket:
        connecting.set()
        assert cut.wait(60)
        return connect(target)

    monkeypatch.setattr(links.socket, "create_connection", connect_slowly)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        links.Link(f"tcp://127.0.0.1:{server.getsockname()[1]}") as link,
        connect(("127.0.0.1", link.port), timeout=60) as client,
    ):
        assert connecting.wait(60)
        link.cut()
        cut.set()
        assert _has_ended(client)


def _has_ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
