"""Start a server process, send requests to it, load it with wrk, and measure its CPU and memory. Linux only: reads /proc."""

import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from chassis.dev.embedded import free_port

CONNECTIONS = 16
SETTLE_SECONDS = 1.5
"""After a load, before its CPU time is read: the last batch of spans leaves within a second."""

REPORT = """
done = function(summary, latency)
    local e = summary.errors
    local failed = e.connect + e.read + e.write + e.status + e.timeout
    local rate = summary.requests / summary.duration * 1e6
    local p50, p99 = latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
    io.write(string.format("RESULT %d %f %f %f %d", summary.requests, rate, p50, p99, failed))
end
"""


@dataclass(frozen=True)
class Load:
    """The result of one run of wrk, and its cost for the process."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_request: float


@dataclass(frozen=True)
class Start:
    """The time from exec to the first 200 of each path."""

    to_livez_seconds: float
    to_get_seconds: float
    cpu_seconds: float


class App:
    """A server under measurement. `PORT` in its command stands for the port at which it listens."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], headers: dict[str, str] | None = None
    ) -> None:
        self.name, self.headers = name, headers or {}
        self._command = command
        self._environment = environment
        self._port = 0

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Start the process on a free port, wait until the process answers, and stop the process at the end."""
        self._port = free_port()
        self._process = subprocess.Popen(
            [part.replace("PORT", str(self._port)) for part in self._command],
            env={**os.environ, **self._environment, "HTTP_PORT": str(self._port)},
            stdout=subprocess.DEVNULL,
        )
        try:
            while not self._alive():
                if self._process.poll() is not None:
                    raise SystemExit(f"{self.name} did not start")
                time.sleep(0.005)
            yield
        finally:
            self._process.terminate()
            self._process.wait(30)

    def start(self, path: str) -> Start:
        """Start the process once, measure the start, and stop the process."""
        begun = time.perf_counter()
        with self.running():
            alive = time.perf_counter() - begun
            self.get(path)
            return Start(alive, time.perf_counter() - begun, self.cpu_seconds())

    def get(self, path: str) -> dict:
        """Send a GET, and return the body of the answer."""
        return self._open(path, None)

    def post(self, path: str, body: str) -> dict:
        """Send a POST, and return the body of the answer."""
        return self._open(path, body.encode())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def load(self, script: Path, seconds: int) -> Load:
        """Run wrk with a script. Ends the benchmark if one answer was not 2xx."""
        before = self.cpu_seconds()
        requests, rate, p50, p99 = self.wrk(script, seconds)
        time.sleep(SETTLE_SECONDS)
        cpu = self.cpu_seconds() - before
        return Load(requests, rate, p50, p99, cpu / requests * 1e6)

    def wrk(self, script: Path, seconds: int) -> tuple[int, float, float, float]:
        """Run wrk, and return the requests, their rate, p50 and p99. Ends the benchmark if one answer was not 2xx."""
        options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
        output = subprocess.run(["wrk", *options, self.url], capture_output=True, text=True, check=True).stdout
        requests, rate, p50, p99, failed = map(float, output.partition("RESULT")[2].split())
        if failed:
            raise SystemExit(f"{self.name}: {failed:.0f} requests of {script.stem} failed")
        return int(requests), rate, p50, p99

    def memory_mib(self) -> float:
        """Return the present resident memory of the process."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process until now, of all of its threads."""
        # User and system time of every thread: fields 14 and 15 of proc(5), counted behind the name in brackets.
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _alive(self) -> bool:
        try:
            self.get("/livez")
        except OSError:
            return False
        return True

    def _open(self, path: str, body: bytes | None) -> dict:
        headers = {"Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(f"{self.url}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)
