"""Generate a service with Copier, start it, be its client, and show the trace of one request.

CI=1 in the environment: stop when everything was shown. The exit status is 0 only if all of it happened.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from demo.otlp import OtlpReceiver, tree

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "build" / "demo" / "billing"
ANSWERS = {
    "service_name": "billing",
    "description": "Invoices, from the first draft to the copy that is sent",
    "limited_by_monolith": "yes",
    "separate_team": "yes",
    "ready_for_consistency": "yes",
}
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 30


class DemoFailed(Exception):
    """Something that should have happened did not."""


def main() -> int:
    """Run the demo. Returns the exit status."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make_room()
        step("Generating the service", generate)
        step("Installing it", install)
        with OtlpReceiver() as receiver, running(receiver.endpoint) as (base, process):
            with httpx.Client(base_url=base, timeout=10) as client:
                trace_id = converse(client, lambda: say(f"first 200 after {time.monotonic() - started:.1f} s"))
                show_trace(receiver, trace_id)
            say(f"all shown after {time.monotonic() - started:.1f} s\n")
            if not os.environ.get("CI"):
                stay(base, process)
    except KeyboardInterrupt:
        print()
    except (DemoFailed, httpx.HTTPError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def say(text: str) -> None:
    print(text, flush=True)


def step(title: str, action: Callable[[], None]) -> None:
    print(f"{title} … ", end="", flush=True)
    began = time.monotonic()
    action()
    say(f"{time.monotonic() - began:.1f} s")


def make_room() -> None:
    """Remove the last demo's service; one that was worked on is moved aside instead."""
    if not SERVICE.exists():
        return
    changes = git("status", "--porcelain", check=False).stdout
    commits = git("rev-list", "--count", "HEAD", check=False).stdout.strip()
    if changes or commits != "1":
        aside = SERVICE.with_name(f"{SERVICE.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        SERVICE.rename(aside)
        say(f"Kept your changed copy as {aside.relative_to(ROOT)}")
    else:
        shutil.rmtree(SERVICE)


def generate() -> None:
    answers = [part for name, value in ANSWERS.items() for part in ("-d", f"{name}={value}")]
    # HEAD, not the newest release: the demo shows this checkout.
    version = ["--vcs-ref", "HEAD"] if (ROOT / ".git").exists() else []
    run([sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", *version, *answers, str(ROOT), str(SERVICE)])


def install() -> None:
    git("init", "--quiet", "--initial-branch", "main")
    run(["make", "setup"], cwd=SERVICE)
    git("add", "--all")
    identity = ["-c", "user.name=slipway demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgsign=false"]
    git(*identity, "commit", "--quiet", "--message", "Start billing")


def git(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(["git", *arguments], cwd=SERVICE, check=check)


def run(command: list[str], *, cwd: Path = ROOT, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    if check and result.returncode != 0:
        raise DemoFailed(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result


def environment(**extra: str) -> dict[str, str]:
    """Ours, without what would steer the service elsewhere: the demo shows the embedded server."""
    ours = {"DATABASE_URL", "PG_BIN", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    return {name: value for name, value in os.environ.items() if name not in ours} | extra


@contextmanager
def running(otlp_endpoint: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`make dev`'s process: PostgreSQL, migrations, the service. Yields the service's URL, and the process."""
    print("Starting PostgreSQL, migrating, starting the service … ", end="", flush=True)
    began = time.monotonic()
    log = SERVICE / ".dev" / "demo.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [".venv/bin/python", "-m", "billing", "dev"],
            cwd=SERVICE,
            env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=otlp_endpoint, SERVICE_VERSION="demo"),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        base = wait_for_url(process, log)
        say(f"{time.monotonic() - began:.1f} s")
        yield base, process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for_url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.strip().startswith("readiness"):
                return line.split()[-1].removesuffix("/readyz")
        time.sleep(0.05)
    raise DemoFailed(f"the service did not start:\n{log.read_text()}")


def converse(client: httpx.Client, on_first_answer: Callable[[], None]) -> str:
    """Be a client. Returns the trace id of the request that created the invoice."""
    draft = {
        "number": "2027-0001",
        "customer_id": "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d",
        "total": {"amount": 1250, "currency": "EUR"},
    }
    expect(client.get("/readyz"), 200)
    on_first_answer()

    say("\nAn invoice is created, read and listed:")
    created = exchange(client, "POST", "/v1/invoices", 201, json=draft)
    url = created.headers["Location"]
    exchange(client, "GET", url, 200)
    exchange(client, "GET", "/v1/invoices", 200)

    say("It is issued, once:")
    exchange(client, "POST", f"{url}/issue", 200, headers={"If-Match": created.headers["ETag"]})
    exchange(client, "POST", f"{url}/issue", 409, headers={"If-Match": "*"})

    say("What is wrong is said in one form (RFC 9457), with a code that never changes:")
    exchange(client, "GET", "/v1/invoices/00000000-0000-0000-0000-000000000000", 404)
    exchange(client, "POST", "/v1/invoices", 422, json=draft | {"total": {"amount": 12.5, "currency": "euro"}})
    return created.headers["X-Request-Id"]


def exchange(client: httpx.Client, method: str, path: str, status: int, **options: Any) -> httpx.Response:
    """Send, show both sides, insist on the status."""
    response = client.request(method, path, **options)
    headers = "".join(f"  {name}: {value}" for name, value in options.get("headers", {}).items())
    say(f"\n  {method} {path}{headers}")
    if "json" in options:
        say(f"    {json.dumps(options['json'])}")
    say(f"  {response.status_code} {response.reason_phrase}")
    if response.content:
        say("".join(f"    {line}\n" for line in json.dumps(response.json(), indent=2).splitlines()))
    return expect(response, status)


def expect(response: httpx.Response, status: int) -> httpx.Response:
    if response.status_code != status:
        raise DemoFailed(f"{response.request.method} {response.url}: {response.status_code}, expected {status}")
    return response


def show_trace(receiver: OtlpReceiver, trace_id: str) -> None:
    # The request, its INSERT and its COMMIT.
    spans = receiver.wait_for(trace_id, count=3, timeout=15)
    if len(spans) < 3:
        raise DemoFailed(f"trace {trace_id} has {len(spans)} spans, expected the request, its INSERT and its COMMIT")
    say(f"The request that created it, as one trace ({trace_id}):\n")
    say("".join(f"  {line}\n" for line in tree(spans).splitlines()))


def stay(base: str, process: subprocess.Popen[bytes]) -> None:
    say("The service goes on until Ctrl-C:\n")
    say(f"  API       {base}/v1/invoices\n  docs      {base}/docs\n  source    {SERVICE.relative_to(ROOT)}\n")
    raise DemoFailed(f"the service ended with status {process.wait()}")


if __name__ == "__main__":
    raise SystemExit(main())
