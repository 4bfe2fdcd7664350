"""The steps of Kubernetes with deploy/base at a release, done with processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml
from chassis.dev import embedded

from tests.service.rolling.balancer import Balancer, balancer
from tests.support.brokers import free_port, is_free
from tests.support.waiting import until

MIGRATE_SECONDS = 120
REPLICAS = 2
SPARE = 4
"""Additional ports, in case other programs take some in the meantime."""


@dataclass(frozen=True)
class Image:
    """The code of one version."""

    version: str
    folder: Path

    def command(self, argument: str) -> list[str]:
        return [sys.executable, "-m", "billing", argument]

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        kept = {name: it for name, it in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))}
        # These folders come before the chassis that this environment has installed.
        path = f"{self.folder / 'src'}:{self.folder / 'chassis/src'}"
        return {**kept, "PYTHONPATH": path, "SERVICE_VERSION": self.version, **settings}


@dataclass
class Pod:
    """A process of a Deployment."""

    image: Image
    port: int
    log: Path
    process: embedded.Process

    async def until_ready(self) -> None:
        await until(self._ready)

    async def _ready(self) -> bool:
        if self.process.child.poll() is not None:
            raise RuntimeError(f"{self.log.stem} ended:\n{self.log.read_text()[-3000:]}")
        try:
            async with httpx2.AsyncClient() as client:
                as_this = {"version": self.image.version}
                answer = await client.get(f"http://127.0.0.1:{self.port}/readyz", params=as_this)
        except httpx2.HTTPError:
            return False
        return answer.status_code == 200

    async def terminate(self, grace_seconds: float) -> int:
        """Send SIGTERM, and SIGKILL after the grace period. Returns the exit status."""
        await asyncio.to_thread(self.process.stop, patience_seconds=grace_seconds)
        return self.process.child.returncode


@dataclass
class Deployment:
    """The pods of one manifest."""

    command: str
    manifest: Mapping[str, Any]
    settings: Mapping[str, str]
    folder: Path
    ports: Iterator[int]
    """The ports of pods: each new pod has a new port."""
    pods: list[Pod] = field(default_factory=list)

    async def scale(self, image: Image, **settings: str) -> None:
        """Start the first pods, and wait until they are ready."""
        started = [self._start(image, settings) for _ in range(REPLICAS)]
        await asyncio.gather(*(pod.until_ready() for pod in started))

    async def roll(self, image: Image, **settings: str) -> list[int]:
        """Replace pod by pod, by the manifest's maxSurge 1 and maxUnavailable 0. Returns the old pods' exit statuses.

        An old pod gets SIGTERM when a new pod is ready. The next new pod does not wait for the end of the old pod.
        """
        assert self.manifest["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        ending = []
        for old in list(self.pods):
            await self._start(image, settings).until_ready()
            ending.append(asyncio.create_task(self.remove(old)))
        return await asyncio.gather(*ending)

    async def remove(self, pod: Pod) -> int:
        """End a pod. Returns its exit status."""
        self.pods.remove(pod)
        return await pod.terminate(self.manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])

    def _start(self, image: Image, settings: Mapping[str, str]) -> Pod:
        port = next(self.ports)
        log = self.folder / f"{self.command}-{image.version}-{port}.log"
        with log.open("w") as output:
            process = embedded.spawn(
                image.command(self.command),
                stop_signal=signal.SIGTERM,
                cwd=image.folder,
                env=image.environment({**self.settings, "HTTP_PORT": str(port), **settings}),
                stdout=output,
                stderr=output,
            )
        pod = Pod(image, port, log, process)
        self.pods.append(pod)
        return pod

    def kill(self) -> None:
        for pod in self.pods:
            pod.process.stop(patience_seconds=0)


@dataclass
class Cluster:
    """A service as in deploy/base: an HTTP Deployment behind a load balancer, a worker Deployment, one database."""

    settings: Mapping[str, str]
    serve: Deployment
    work: Deployment
    balancer: Balancer

    async def start(self, image: Image) -> None:
        """Install the service, and wait until it answers."""
        await self.migrate(image)
        await asyncio.gather(self.serve.scale(image), self.work.scale(image))
        await self.balancer.until_it_sends_to({pod.port for pod in self.serve.pods})

    async def release(self, image: Image, **settings: str) -> list[int]:
        """Migrate, then roll all Deployments, in the order of deploy/release.sh. Returns the old pods' exit statuses.

        `settings` apply only to the new HTTP pods.
        """
        await self.migrate(image)
        ended = await asyncio.gather(self.serve.roll(image, **settings), self.work.roll(image))
        await self.balancer.until_it_sends_to({pod.port for pod in self.serve.pods})
        return [status for statuses in ended for status in statuses]

    async def migrate(self, image: Image) -> None:
        """Migrate as the Job does. Raises RuntimeError."""
        done = await asyncio.to_thread(
            subprocess.run,
            image.command("migrate"),
            cwd=image.folder,
            env=image.environment(self.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MIGRATE_SECONDS,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stdout)


@asynccontextmanager
async def cluster(folder: Path, base: Path, releases: int, **settings: str) -> AsyncGenerator[Cluster]:
    """Make a cluster without pods by the manifests in `base`. It has ports for `releases` releases, the first included."""
    (given,) = yaml.safe_load((base / "kustomization.yaml").read_text())["configMapGenerator"]
    settings = dict(literal.split("=", 1) for literal in given["literals"]) | settings
    serve, work = (next(yaml.safe_load_all((base / file).read_text())) for file in ("deployment.yaml", "worker.yaml"))
    (container,) = serve["spec"]["template"]["spec"]["containers"]
    async with balancer(folder, REPLICAS * releases + SPARE, container["readinessProbe"]) as before:
        running = Cluster(
            settings,
            Deployment("serve", serve, settings, folder, filter(is_free, before.ports)),
            Deployment("work", work, settings, folder, iter(free_port, None)),
            before,
        )
        try:
            yield running
        finally:
            running.serve.kill()
            running.work.kill()
