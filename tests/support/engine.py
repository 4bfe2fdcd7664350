"""A container engine: the running engine of this machine, or else Docker Engine from Debian's packages.

Our own engine has its socket, its images and its state in a folder that is removed, and does not change the machine's
network: containers and builds share that network, or have a network without a way out.
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
    """A container engine. `folder` has a `docker` that uses the engine, for programs that look for `docker` in PATH."""

    folder: Path
    enter: tuple[str, ...] = ()
    """The prefix of a command that has to run in the engine's network; empty if that is the machine's network."""

    @property
    def path(self) -> str:
        """Return PATH with the `docker` of this engine in it."""
        return f"{self.folder}:{os.environ['PATH']}"

    def docker(
        self, *arguments: str, check: bool = True, cwd: Path | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command. Raises RuntimeError with its output if the command fails unexpectedly."""
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
        """Return the engine's description of an image or a container."""
        return json.loads(self.docker("inspect", thing).stdout)[0]

    def derive(self, tag: str, image: str, *instructions: str) -> str:
        """Build an image that adds these instructions to another image, and return its tag."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "Dockerfile").write_text("\n".join([f"FROM {image}", *instructions]))
            self.docker("build", "--quiet", "--tag", tag, folder)
        return tag


SHARED = ("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")
"""Options with which containers share the machine's network, and the engine does not change that network."""


@contextlib.contextmanager
def running() -> Generator[Engine]:
    """Yield an engine that has the base image. Skips the test if no engine can be started."""
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
    """Yield an engine with Compose: this machine's, or else our own without images, whose network has no way out.

    Skips as `running` does. `enter` of this machine's engine is empty.
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
    """Return a large folder in memory, if there is one, for the tens of thousands of files of images."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > ROOMY_BYTES else None


def _of_this_machine() -> str | None:
    """Find a client that reaches a daemon, and can build with BuildKit, which the Dockerfile needs."""
    client = shutil.which("docker")
    if client is None:
        return None
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": COMMAND_TIMEOUT_SECONDS}
    able = all(
        subprocess.run([client, *command], **quiet).returncode == 0 for command in (["info"], ["buildx", "version"])
    )
    # `docker info` succeeds without a daemon, but the query of the server's version fails.
    reached = subprocess.run([client, "version", "--format", "{{.Server.Version}}"], **quiet).returncode == 0
    return client if able and reached else None


@contextlib.contextmanager
def _started(folder: Path, *network: str, before: tuple[str, ...] = ()) -> Generator[Engine]:
    daemon, client = _installed()
    images = tempfile.TemporaryDirectory(prefix="engine-", dir=_roomy_memory(), ignore_cleanup_errors=True)
    state = ["--data-root", images.name, "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")]
    socket = f"unix://{folder / 'socket'}"
    configuration = folder / "daemon.json"  # the daemon reads this file, and not the configuration in /etc
    configuration.write_text("{}")
    with (folder / "daemon.log").open("wb") as log:
        process = spawn(
            [*before, daemon, "--host", socket, "--config-file", str(configuration), *state, *network],
            stop_signal=signal.SIGTERM,
            stdout=log,
            stderr=log,
        )
    # The only network is the host's, so a build has to name it. The predefined arguments are for a proxy.
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
        process.stop(
            patience_seconds=STOP_PATIENCE_SECONDS
        )  # the engine stops its containers, and unmounts their file systems
        # Remove the name of the host's network, which the engine would keep for its next start.
        subprocess.run(["umount", str(folder / "exec/netns/default")], capture_output=True)
        images.cleanup()


def prepare() -> None:
    """Install the parts of an engine, unless an engine runs here. Skips the test if that fails."""
    if sys.platform != "linux":
        pytest.skip("containers reach the tests' servers by the host's network, which only Linux gives them")
    if _of_this_machine() is None:
        _installed()
        base_image.file_system()


def _installed() -> tuple[str, str]:
    # Both programs are Debian's, so their versions are the same. A newer client in PATH needs a plugin that Debian lacks.
    daemon, client = Path("/usr/sbin/dockerd"), Path("/usr/bin/docker")
    with one_at_a_time("docker"):
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip("no container engine runs here, and only root on Debian can start one: install Docker")
        if not (daemon.exists() and client.exists()):
            # Run level 1 keeps Debian's package from starting the system's own daemon.
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
        if process.child.poll() is not None:  # for example without the rights for mounts and control groups
            pytest.skip(f"dockerd cannot run here: {log.read_text().strip()[-500:]}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"dockerd did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)
