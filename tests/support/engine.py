"""A container engine: the one that runs on this machine, else Docker Engine out of Debian's packages, started for us alone.

Ours has its socket, its images and its state in a folder that is removed, and leaves the machine's network as it is:
containers and builds share that network, or have one that leads nowhere else.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from chassis.dev.embedded import Process, spawn

from tests.support import base_image, compose
from tests.support.tools import install_from_debian, one_at_a_time

START_TIMEOUT_SECONDS = 120
STOP_PATIENCE_SECONDS = 60
COMMAND_TIMEOUT_SECONDS = 600
ROOMY_BYTES = 6 * 2**30


@dataclass(frozen=True)
class Engine:
    """`folder` has a `docker` that speaks to this engine: for whoever looks for it in PATH."""

    folder: Path
    enter: tuple[str, ...] = ()
    """What to put before a command so that it has the engine's network, if that is not the machine's."""

    @property
    def path(self) -> str:
        """PATH with that program in it."""
        return f"{self.folder}:{os.environ['PATH']}"

    def docker(
        self, *arguments: str, check: bool = True, cwd: Path | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command. Raises RuntimeError with what it printed, if it failed and that was not expected."""
        done = subprocess.run(
            [str(self.folder / "docker"), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=COMMAND_TIMEOUT_SECONDS,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
        return done

    def inspect(self, thing: str) -> dict:
        """What the engine knows of an image or a container."""
        return json.loads(self.docker("inspect", thing).stdout)[0]

    def derive(self, tag: str, image: str, *instructions: str) -> str:
        """Build an image that adds these instructions to another one. Returns its tag."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "Dockerfile").write_text("\n".join([f"FROM {image}", *instructions]))
            self.docker("build", "--quiet", "--tag", tag, folder)
        return tag


SHARED = ("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")
"""The machine's network is also that of containers, and stays as it is."""


@contextlib.contextmanager
def running() -> Generator[Engine]:
    """An engine that has the base image. Skips where there is none and we cannot bring one."""
    if sys.platform != "linux":
        pytest.skip("containers reach the tests' servers by the host's network, which only Linux gives them")
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as folder:
        if client := _of_this_machine():
            yield _with_client(Path(folder), f'exec {client} "$@"')
            return
        with _started(Path(folder), *SHARED) as engine:
            base_image.load(engine.docker, Path(folder))
            yield engine


@contextlib.contextmanager
def with_compose() -> Generator[Engine]:
    """An engine with Docker Compose: this machine's, else one of ours, without images, whose network leads nowhere else.

    Skips likewise. `enter` of this machine's engine is empty.
    """
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as folder:
        if client := _of_this_machine():
            with_plugin = shlex.join(compose.command())
            script = f'if [ "$1" = compose ]; then shift; exec {with_plugin} "$@"; fi\nexec {client} "$@"'
            yield _with_client(Path(folder), script)
            return
        plugins = Path(folder, "cli-plugins")
        plugins.mkdir()
        alone = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "-")
        with _started(Path(folder), before=alone) as engine:
            (plugins / "docker-compose").symlink_to(compose.plugin())
            namespace = f"--net=/proc/{Path(folder, 'pid').read_text().strip()}/ns/net"
            yield replace(engine, enter=("nsenter", namespace))


def _roomy_memory() -> Path | None:
    """Where there is memory for it, images are kept there: tens of thousands of files, soon removed again."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > ROOMY_BYTES else None


def _of_this_machine() -> str | None:
    """A client that reaches a daemon, and can build with BuildKit, which the Dockerfile needs."""
    client = shutil.which("docker")
    if client is None:
        return None
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": COMMAND_TIMEOUT_SECONDS}
    able = all(
        subprocess.run([client, *command], **quiet).returncode == 0 for command in (["info"], ["buildx", "version"])
    )
    # `docker info` is content without a daemon, but the server's version is not.
    reached = subprocess.run([client, "version", "--format", "{{.Server.Version}}"], **quiet).returncode == 0
    return client if able and reached else None


@contextlib.contextmanager
def _started(folder: Path, *network: str, before: tuple[str, ...] = ()) -> Generator[Engine]:
    daemon, client = _installed()
    images = tempfile.TemporaryDirectory(prefix="engine-", dir=_roomy_memory(), ignore_cleanup_errors=True)
    state = ["--data-root", images.name, "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")]
    socket = f"unix://{folder / 'socket'}"
    configuration = folder / "daemon.json"  # not the one in /etc
    configuration.write_text("{}")
    with (folder / "daemon.log").open("wb") as log:
        process = spawn(
            [*before, daemon, "--host", socket, "--config-file", str(configuration), *state, *network],
            stop_signal=signal.SIGTERM,
            stdout=log,
            stderr=log,
        )
    # There is no network but the host's, so a build has to name it. The predefined arguments are for who has a proxy.
    proxies = " ".join(f"--build-arg {name}" for name in base_image.PROXIES if name in os.environ)
    engine = _with_client(
        folder,
        f"export DOCKER_HOST={socket} DOCKER_CONFIG={folder} DOCKER_BUILDKIT=1\n"
        f'if [ "$1" = build ]; then shift; exec {client} build --network host {proxies} "$@"; fi\n'
        f'exec {client} "$@"',
    )
    try:
        _wait_for(engine, process, folder / "daemon.log")
        yield engine
    finally:
        process.stop(patience_seconds=STOP_PATIENCE_SECONDS)  # it stops its containers, and unmounts what they had
        # But for the name of the host's network, which it would keep for its next start.
        subprocess.run(["umount", str(folder / "exec/netns/default")], capture_output=True)
        images.cleanup()


def prepare() -> None:
    """Install what an engine is started with, unless one runs here. Skips where that cannot be done."""
    if sys.platform != "linux":
        pytest.skip("containers reach the tests' servers by the host's network, which only Linux gives them")
    if _of_this_machine() is None:
        _installed()
        base_image.file_system()


def _installed() -> tuple[str, str]:
    # By path: an engine's client has the engine's age. A newer one in PATH builds only with a plugin that Debian has not.
    daemon, client = Path("/usr/sbin/dockerd"), Path("/usr/bin/docker")
    with one_at_a_time("docker"):
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip("no container engine runs here, and only root on Debian can start one: install Docker")
        if not (daemon.exists() and client.exists()):
            # Nobody is to find the system's own daemon running: in run level 1 none is started.
            install_from_debian("docker.io", RUNLEVEL="1")
    return str(daemon), str(client)


def _with_client(folder: Path, script: str) -> Engine:
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Engine(folder)


def _wait_for(engine: Engine, process: Process, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while engine.docker("version", check=False).returncode != 0:
        if process.child.poll() is not None:  # without the rights for mounts and control groups, for example
            pytest.skip(f"dockerd cannot run here: {log.read_text().strip()[-500:]}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"dockerd did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)
