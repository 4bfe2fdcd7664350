"""The image's health check, as the container runtime runs it."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable

from chassis.dev import embedded
from fastapi import FastAPI

from tests.chassis.processes import environment
from tests.chassis.sockets import listening


def check(**variables: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chassis.web.healthcheck"]
    return subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=120)


async def test_a_running_service_is_healthy_with_any_proxy_in_the_environment(
    make_app: Callable[..., FastAPI],
) -> None:
    async with listening(make_app()) as client:
        port = client.base_url.port
        dead_proxy = f"http://127.0.0.1:{embedded.free_port()}"

        assert (await asyncio.to_thread(check, HTTP_PORT=port)).returncode == 0
        assert (await asyncio.to_thread(check, HTTP_PORT=port, http_proxy=dead_proxy)).returncode == 0


def test_nothing_there_is_unhealthy_and_says_why() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # the port is taken, and nobody listens on it
        result = check(HTTP_PORT=nobody.getsockname()[1])

    assert result.returncode == 1
    assert result.stderr.startswith("not alive: ")
    assert "Traceback" not in result.stderr
