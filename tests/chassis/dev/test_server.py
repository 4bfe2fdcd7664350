"""`make dev` takes another port only if another program has the port that was asked for."""

import errno
import socket
from typing import Any

import pytest
from chassis.dev import server


def test_a_taken_port_is_replaced_by_a_free_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with server._listen("127.0.0.1", port) as listener:
            assert listener.getsockname()[1] not in (0, port)


def test_a_port_that_this_user_may_not_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(server._NotAlive, match=r"cannot listen on 127.0.0.1:80: Permission denied. HTTP_PORT"):
        server._listen("127.0.0.1", 80)
