"""HAProxy in front of the pods, as a Service and an ingress are. It hides no failure."""

import csv
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from chassis.dev import embedded

from tests.support.brokers import free_port
from tests.support.tools import install_from_debian, one_at_a_time
from tests.support.waiting import until

CHECK_SECONDS = 1
"""Shorter than the period of the probe in Kubernetes, which also removes a pod that ends. Here only /readyz shows that."""

# `connections`: a caller's connection belongs to one pod, as with kube-proxy. `requests`: each request goes to any pod,
# over connections that all callers share, as with an ingress. Neither repeats a request.
CONFIGURATION = """
defaults
    retries 0
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout check {timeout}s
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter {inter}s fall {fall} rise 1

listen connections
    mode tcp
    bind 127.0.0.1:{connections}
{servers}

listen requests
    mode http
    http-reuse always
    bind 127.0.0.1:{requests}
{servers}

frontend told
    mode http
    bind 127.0.0.1:{told}
    stats enable
    stats uri /
"""


@dataclass(frozen=True)
class Balancer:
    """A load balancer, which sends to the ready pods among its configured ports."""

    bases: list[str]
    """URLs for callers: two balancers in front of the same pods."""
    ports: list[int]
    """The ports that pods may have."""
    told: str

    async def until_it_sends_to(self, ports: set[int]) -> None:
        """Wait until the balancer sends to all of these ports, and to no other. Raises TimeoutError."""
        async with httpx2.AsyncClient() as client:

            async def so() -> bool:
                return await self._sends_to(client) == [ports] * len(self.bases)

            await until(so)

    async def _sends_to(self, client: httpx2.AsyncClient) -> list[set[int]]:
        try:
            page = (await client.get(f"{self.told}/;csv")).text.lstrip("# ")
        except httpx2.HTTPError:  # HAProxy is starting
            return []
        # HAProxy shows "UP 1/2" for a server whose first check has failed, and goes on sending requests there.
        up = [row for row in csv.DictReader(page.splitlines()) if row["status"].startswith("UP")]
        servers = [row for row in up if row["svname"].isdigit()]
        return [{int(row["svname"]) for row in servers if row["pxname"] == way} for way in ("connections", "requests")]


@asynccontextmanager
async def balancer(folder: Path, pods: int, readiness: Mapping[str, int]) -> AsyncGenerator[Balancer]:
    """Run HAProxy in front of `pods` ports. Only a few ports have a pod at a time. HAProxy asks the probe `readiness`."""
    program = haproxy()
    connections, requests, told, *ports = _free_ports(3 + pods)
    configuration, log = folder / "haproxy.cfg", folder / "haproxy.log"
    configuration.write_text(
        CONFIGURATION.format(
            connections=connections,
            requests=requests,
            told=told,
            servers="\n".join(f"    server {port} 127.0.0.1:{port}" for port in ports),
            inter=CHECK_SECONDS,
            fall=readiness["failureThreshold"],
            timeout=readiness["timeoutSeconds"],
        )
    )
    with log.open("w") as output:
        command = [program, "-db", "-f", str(configuration)]
        process = embedded.spawn(command, stop_signal=signal.SIGKILL, stdout=output, stderr=output)
    try:
        bases = [f"http://127.0.0.1:{port}" for port in (connections, requests)]
        yield Balancer(bases, ports, f"http://127.0.0.1:{told}")
    finally:
        process.stop()


def _free_ports(number: int) -> list[int]:
    found: set[int] = set()
    while len(found) < number:
        found.add(free_port())
    return list(found)


def haproxy() -> str:
    """Return the path of HAProxy. Skips the test if it cannot be installed."""
    where = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    if (found := shutil.which("haproxy", path=where)) is None:
        with one_at_a_time("haproxy"):
            if (found := shutil.which("haproxy", path=where)) is None:
                if shutil.which("apt-get") is None or os.geteuid() != 0:
                    pytest.skip("HAProxy is not installed, and only root on Debian can do it here: install haproxy")
                install_from_debian("haproxy", RUNLEVEL="1")  # the package must not start a service of the system
                found = shutil.which("haproxy", path=where)
    assert found is not None
    return found
