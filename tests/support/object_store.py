"""A real object store with the API of S3, which checks signatures: rclone, on a folder of this machine."""

import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from chassis.dev import embedded

from tests.support.waiting import wait_until

KEY_ID, KEY = "key", "secret"


@contextmanager
def object_store(folder: Path) -> Generator[str]:
    """Serve the folders in `folder` as buckets. Yields the URL."""
    port = embedded.free_port()
    program = Path(sys.executable).with_name("rclone")
    serve = ["serve", "s3", "--config", "/dev/null", "--auth-key", f"{KEY_ID},{KEY}", "--addr", f"127.0.0.1:{port}"]
    with (folder / "rclone.log").open("w") as log:
        process = subprocess.Popen([program, *serve, folder], stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(port), (folder / "rclone.log").read_text)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
