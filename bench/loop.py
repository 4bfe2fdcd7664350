"""Measure the loop of edit, run and debug under `make dev`: `make bench-loop`, or `make bench-loop ARGS="--rounds 1"`.

A time is from the moment when a file is saved, or the command is entered, until the effect is there. Medians are shown.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import median

import httpx2
import pexpect
from chassis.dev.embedded import free_port

from tests.support.leftovers import clean_up_after_this_process

ROOT = Path(__file__).parents[1]
SHOW = '@router.get("/{invoice_id}", '
STREAM = """
@router.get("/ticks")
@scopes("invoices:read")
async def tick():
    import asyncio
    from fastapi.responses import StreamingResponse
    async def ticks():
        while True:
            yield b"tick"
            await asyncio.sleep(0.1)
    return StreamingResponse(ticks())


"""
QUERY = "    return await invoice_queries.find_invoice("
MIGRATION = (
    'from alembic import op\nrevision = "{0}"\ndown_revision = "{1}"\ndef upgrade():\n    op.execute("SELECT {0}")\n'
)


class Loop:
    """A generated service, and the `make dev` that runs in it."""

    def __init__(self, service: Path) -> None:
        self._service, self._port, self._edits = service, free_port(), 0
        self._route = service / "src/billing/api/invoices.py"
        self._code = self._route.read_text().replace(SHOW, STREAM + SHOW)

    def start(self) -> float:
        self._route.write_text(self._code)
        began, env = time.monotonic(), {**os.environ, "HTTP_PORT": str(self._port)}
        self._dev = pexpect.spawn("make", ["dev"], cwd=str(self._service), env=env, timeout=120, encoding="utf-8")
        self._dev.expect(r"Authorization: Bearer ([\w.-]+)'")
        assert self._dev.match is not None
        token, base = {"Authorization": f"Bearer {self._dev.match[1]}"}, f"http://127.0.0.1:{self._port}"
        self._client = httpx2.Client(base_url=base, headers=token, timeout=120)
        self._ask("/v1/invoices")
        return time.monotonic() - began

    def stop(self) -> None:
        self._dev.sendintr()
        self._dev.expect(pexpect.EOF)
        self._dev.close()

    def save(self) -> float:
        """Change the path of the routes, and return the seconds until the new path answers."""
        self._edits += 1
        path = f"/v1/invoices-{self._edits}"
        began = self._saved('prefix="/v1/invoices"', f'prefix="{path}"')
        self._ask(path)
        return time.monotonic() - began

    def save_beside_a_stream(self) -> float:
        self._saved(QUERY, QUERY)
        self._ask("/v1/invoices")
        with self._client.stream("GET", "/v1/invoices/ticks") as stream:
            parts = stream.iter_raw()  # the garbage collector would close the stream with the iterator
            next(parts)
            return self.save()

    def stop_at_a_breakpoint(self) -> float:
        """Save a `breakpoint()` while requests come, and return the seconds until its prompt is open."""
        began = self._saved(QUERY, f"    breakpoint()\n{QUERY}")
        asking = threading.Thread(target=self._ask, args=["/v1/invoices/00000000-0000-0000-0000-000000000000", 404, 1])
        asking.start()
        self._dev.expect(r"\(Pdb\) ")
        seconds = time.monotonic() - began
        time.sleep(1)
        self._dev.sendline("continue")
        asking.join()
        return seconds

    def migrate(self) -> float:
        folder = self._service / "src/billing/migrations/versions"
        count = len([*folder.glob("0*.py")])
        began = time.monotonic()
        (folder / f"{count + 1:04}_next.py").write_text(MIGRATION.format(f"{count + 1:04}", f"{count:04}"))
        self._dev.expect(f"the database has {count + 1:04}_next.py now")
        return time.monotonic() - began

    def _saved(self, old: str, new: str) -> float:
        self._route.write_text(self._code.replace(old, new))
        return time.monotonic()

    def _ask(self, path: str, status: int = 200, at_least_seconds: float = 0) -> None:
        """Ask until an answer has this status and took this long: a request that waits at the prompt takes longer than others."""
        while True:
            asked = time.monotonic()
            with suppress(httpx2.TransportError):
                answer = self._client.get(path)
                if answer.status_code == status and time.monotonic() - asked >= at_least_seconds:
                    return
            if threading.current_thread() is threading.main_thread():
                self._dev.expect(pexpect.TIMEOUT, timeout=0.01)  # read the terminal, or the service would wait for it


def main() -> None:
    clean_up_after_this_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        service = Path(folder, "billing")
        copier = ["copier", "copy", "--quiet", "--defaults", "--vcs-ref=HEAD", str(ROOT), str(service)]
        for command in (
            [sys.executable, "-m", *copier],
            ["git", "init", "-q", str(service)],
            ["make", "-C", str(service), "setup"],
        ):
            subprocess.run(command, check=True, capture_output=True)
        loop, times = Loop(service), defaultdict[str, list[float]](list)
        loop.start()
        for _ in range(rounds):
            times["save"].append(loop.save())
            times["save beside a stream"].append(loop.save_beside_a_stream())
            times["breakpoint"].append(loop.stop_at_a_breakpoint())
            times["migration"].append(loop.migrate())
            loop.stop()
            times["restart"].append(loop.start())
        loop.stop()
    for name, seconds in times.items():
        print(f"{name:22} {median(seconds):6.2f} s   ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
