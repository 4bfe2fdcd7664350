"""`make dev` takes another port only if another program has the port that was asked for."""

import errno
import socket
from pathlib import Path
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


def test_the_printed_example_is_of_the_first_aggregate_which_refers_to_no_other(tmp_path: Path) -> None:
    for name in ("0001_create_price_lists.py", "0002_create_orders.py"):
        (tmp_path / name).touch()
    paths: dict[str, dict[str, str]] = {"/v1/orders": {}, "/v1/orders/{id}": {}, "/v1/price-lists": {}}
    ordered = server.first_aggregate_first(tmp_path, {"openapi": "3.1.0", "paths": paths})
    assert list(ordered["paths"]) == ["/v1/price-lists", "/v1/orders", "/v1/orders/{id}"]
    squashed = server.first_aggregate_first(tmp_path / "none", {"paths": paths})
    assert list(squashed["paths"]) == list(paths)
