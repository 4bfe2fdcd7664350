"""The answer to the callers of a service that does not run."""

import asyncio
import gc
import json
import socket

import pytest

from fleet.up.health import ask
from fleet.up.refusal import Refusal


async def test_callers_get_503_while_the_refusal_is_open_and_wait_in_the_queue_afterwards() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        refusal = Refusal(listener, lambda: "orders does not run")
        for _ in range(2):
            await refusal.open()
            await refusal.open()
            status, problem = await ask(port, "/v1/orders", 5)
            assert (status, problem["code"], problem["detail"]) == (503, "not_running", "orders does not run")
            refusal.close()

        with socket.create_connection(("127.0.0.1", port)) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\n\r\n")
            listener.setblocking(True)
            with listener.accept()[0] as accepted:
                assert accepted.recv(100) == b"GET / HTTP/1.1\r\n\r\n"


async def test_the_body_of_a_request_does_not_reset_the_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusal = Refusal(listener, lambda: "orders does not run")
        await refusal.open()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        answer = await reader.read()
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 503
        writer.close()
        refusal.close()


@pytest.mark.parametrize("rounds", range(4))
async def test_a_caller_that_is_accepted_while_the_socket_is_passed_on_is_answered(rounds: int) -> None:
    """A server of asyncio loses such a connection: the caller then waits until the garbage is collected."""
    gc.disable()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            refusal = Refusal(listener, lambda: "orders does not run")
            await refusal.open()
            with socket.create_connection(listener.getsockname()[:2]) as caller:
                caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
                for _ in range(rounds):
                    await asyncio.sleep(0)
                refusal.close()
                await asyncio.sleep(0.01)
                await refusal.open()
                caller.settimeout(10)
                assert (await asyncio.to_thread(caller.recv, 100)).startswith(b"HTTP/1.1 503 ")
            refusal.close()
    finally:
        gc.enable()
