"""The first minutes of a product engineer: the questions, the two commands after them, the curl command, and Ctrl-C."""

import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
import pexpect
import psutil
import pytest
import yaml
from chassis.brokers import SCHEMES
from chassis.web import docs_page
from pexpect import fdpexpect
from playwright.sync_api import Route, expect

from tests.support import npm
from tests.support.answers import VARIANTS
from tests.support.browser import browser
from tests.support.commands import service_environment
from tests.support.needs import SWAGGER_UI
from tests.support.otlp import OtlpReceiver
from tests.support.paths import ROOT
from tests.support.services import Birth, Render, lend_packages
from tests.support.waiting import wait_until

# These tests are one group and run one after the other, because each test uses port 8000 if that port is free.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dev")]

START_SECONDS = 120
STOP_SECONDS = 90


@pytest.mark.parametrize("broker", ["kafka", "rabbitmq"])
def test_make_dev_uses_the_broker_that_compose_starts_unless_another_broker_is_named(
    render: Render, tmp_path: Path, broker: str
) -> None:
    service = shutil.copytree(render(messaging_style="events", broker=broker), tmp_path / "service")
    python = service / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$BROKER_URL"\n')
    python.chmod(0o755)
    for path in ("uv.lock", ".venv/.ready"):
        (service / path).touch()

    def used(**environment: str) -> str:
        command = ["make", "--silent", "dev"]
        return subprocess.check_output(command, cwd=service, env=service_environment(**environment), text=True).strip()

    published = yaml.safe_load((service / "compose.yaml").read_text())["services"][broker]["ports"][0]
    host, port = re.fullmatch(r"(.+):\$\{BROKER_PORT:-(\d+)\}:\d+", published).groups()
    default = urlsplit(used())
    assert (SCHEMES[default.scheme], default.hostname, default.port) == (broker, host, int(port))
    assert used(BROKER_URL="amqp://elsewhere") == "amqp://elsewhere"


def test_the_two_commands_that_a_copy_ends_with_lead_to_a_running_service(
    template: Path, tmp_path: Path, birth: Birth
) -> None:
    commands = answer_every_question(template, tmp_path)
    lend_packages(birth(**VARIANTS["default"]), tmp_path / "billing")
    subprocess.run(commands[0], shell=True, cwd=tmp_path, env=service_environment(**IDENTITY), check=True)
    committed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=tmp_path / "billing", capture_output=True, text=True
    )
    assert (committed.returncode, committed.stdout) == (0, "")

    assert commands[1] == "make dev"
    with dev(tmp_path / "billing", "make", "dev") as process:
        output = wait_for(process, "Try it:")
        pasted = output.partition("Try it:")[2].replace("\\\n", " ")
        answer = subprocess.run(shlex.split(pasted), capture_output=True, text=True, check=True)
        assert "201 Created" in answer.stdout
        assert_traced(output, request_id=re.search(r"x-request-id: (\w+)", answer.stdout)[1])
        assert_docs_take_the_token(re.search(r"docs +(http://\S+)", output)[1], printed_token(tmp_path / "billing"))
        everything = family(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends Ctrl-C: to make and all its descendants
        assert_all_gone(everything, output)


def printed_token(service: Path, *options: str) -> str:
    (package,) = (path.parent.name for path in service.glob("src/*/main.py"))
    command = [".venv/bin/python", "-m", package, "token", *options]
    return subprocess.check_output(command, cwd=service, env=service_environment(), text=True).strip()


def assert_docs_take_the_token(url: str, token: str) -> None:
    """Try an operation on the page in a browser: 401 before the click on Authorize, and 200 after it."""
    assert docs_page._FILES.endswith(SWAGGER_UI)

    def from_npm(route: Route) -> None:
        file = npm.packed(SWAGGER_UI, route.request.url.rpartition("/")[2])
        kind = "text/css" if file.suffix == ".css" else "text/javascript"
        route.fulfill(path=file, content_type=kind, headers={"Access-Control-Allow-Origin": "*"})

    with browser() as launched:
        page = launched.new_page()
        page.set_default_timeout(START_SECONDS * 1000)
        page.route("https://cdn.jsdelivr.net/**", from_npm)
        page.goto(url)
        listing = page.locator(".opblock-get", has=page.locator('[data-path="/v1/invoices"]'))
        listing.get_by_role("button").first.click()
        page.get_by_role("button", name="Try it out").click()

        def execute(status: int) -> None:
            page.get_by_role("button", name="Execute").click()
            expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text(str(status))

        execute(401)
        page.get_by_role("button", name="Authorize", exact=True).click()
        page.locator(".auth-container input").fill(token)
        page.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close").click()
        execute(200)


def assert_traced(output: str, request_id: str) -> None:
    """Check that the page of `make dev` has the request with its SQL and its log line, at the address that was printed."""
    viewer = re.search(r"traces +(http://127\.0\.0\.1:\d+/\S+/)\n", output)[1]
    assert "<title>Traces</title>" in httpx2.get(viewer).text

    def entries() -> list[dict[str, Any]]:
        trace = httpx2.get(f"{viewer}find", params={"id": request_id}).json()["trace"]
        return httpx2.get(f"{viewer}traces/{trace}").json()["entries"] if trace else []

    wait_until(lambda: any("POST" in entry.get("name", "") for entry in entries()), seconds=START_SECONDS)
    found = {entry.get("name", entry.get("event")): entry for entry in entries()}
    assert found["POST /v1/invoices"]["attributes"]["http.response.status_code"] == 201
    assert found["INSERT billing.invoices"]["attributes"]["db.query.text"].startswith("INSERT INTO billing.invoices (")
    assert found["request_finished"]["facts"]["status"] == 201
    assert {found[name]["depth"] for name in ("INSERT billing.invoices", "request_finished")} == {1}


def test_make_dev_takes_another_port_than_a_taken_port_and_sends_traces_away_and_leaves_nothing_running_when_killed(
    birth: Birth,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, OtlpReceiver() as receiver:
        taken = other.getsockname()[1]
        settings = [f"HTTP_PORT={taken}", f"OTEL_EXPORTER_OTLP_ENDPOINT={receiver.endpoint}"]
        service = birth(**VARIANTS["queues-nats"])
        with dev(service, "env", *settings, "make", "dev") as process:
            output = wait_for(process, "Try it:")
            assert f"Port {taken} is taken" in output
            base = re.search(r"API +(http://[\d.:]+)/", output)[1]
            assert fetch(f"{base}/readyz") == 200
            assert fetch(f"{base}/docs") == 200
            try_the_tokens(service, f"{base}/v1/shipments", output)
            assert "traces " not in output
            trace = httpx2.get(f"{base}/v1/shipments").headers["X-Request-Id"]
            assert receiver.wait_for(trace, count=1, timeout=START_SECONDS)
            assert_a_killed_parent_leaves_nothing_running(process, output, "python")


def try_the_tokens(service: Path, url: str, output: str) -> None:
    """Send the printed request, which contains a token, and requests with tokens of the command."""
    pasted = shlex.split(output.partition("Try it:")[2].replace("\\\n", " "))
    assert "201 Created" in subprocess.check_output(pasted, text=True)
    command = shlex.split(re.search(r"tokens +(.+)", output)[1])
    assert "--scope" in subprocess.check_output(command, text=True, cwd=service)
    for scope, status in (("shipments:read", 200), ("shipments:write", 403)):
        token = printed_token(service, "--scope", scope)
        assert httpx2.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == status
    assert fetch(url) == 401


def assert_a_killed_parent_leaves_nothing_running(process: subprocess.Popen[str], output: str, victim: str) -> None:
    everything = family(process)
    target = process if victim == "make" else next(one for one in everything if "dev" in one.cmdline())
    os.kill(target.pid, signal.SIGKILL)
    assert_all_gone(everything, output)


STREAM = """

@router.get("/ticks")
@public("a test")
async def ticks() -> StreamingResponse:
    async def content():
        while True:
            yield b"tick"
            await asyncio.sleep(0.1)

    return StreamingResponse(content())
"""


UPLOAD = (
    "POST /v1/invoices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n"
    "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
)


def test_a_saved_file_is_served_at_once_with_a_stream_and_an_upload_open_and_a_killed_make_leaves_nothing_running(
    birth: Birth,
) -> None:
    service = birth(**VARIANTS["default"])
    route = service / "src/billing/api/invoices.py"
    before = route.read_text()
    imports = "import asyncio\n\nfrom chassis.identity import public\nfrom fastapi.responses import StreamingResponse\n"
    rest = '\n\n@router.post("", '
    first = imports + before.replace(rest, STREAM + rest, 1)
    assert STREAM in first
    with dev(service, "env", "REQUEST_TIMEOUT_SECONDS=3600", "make", "dev") as process:
        route.write_text(first)
        output = wait_for(process, "Try it:")
        base = re.search(r"API +(http://[\d.:]+)/", output)[1]
        token = printed_token(service)
        wait_until(lambda: fetch(f"{base}/v1/invoices", token) == 200, seconds=START_SECONDS)
        try:
            with httpx2.stream("GET", f"{base}/v1/invoices/ticks", timeout=START_SECONDS) as stream:
                assert "server" not in stream.headers
                # the variable keeps the iterator: the garbage collector would close the stream with it
                parts = stream.iter_raw()
                assert next(parts) == b"tick"
                with socket.create_connection(("127.0.0.1", urlsplit(base).port)) as upload:
                    upload.sendall(UPLOAD.format(token).encode())
                    time.sleep(0.5)  # wait until the service reads the body
                    route.write_text(before.replace("/v1/invoices", "/v1/bills", 1))
                    wait_until(lambda: fetch(f"{base}/v1/bills", token) == 200, seconds=START_SECONDS)
            assert_a_killed_parent_leaves_nothing_running(process, output, "make")
        finally:
            route.write_text(before)


def test_a_breakpoint_opens_its_prompt_in_the_terminal_and_psql_finds_the_database(birth: Birth) -> None:
    service = birth(**VARIANTS["default"])
    route = service / "src/billing/api/invoices.py"
    before = route.read_text()
    line = "    return await invoice_queries.find_invoice("
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = service_environment(HTTP_PORT=str(port), REQUEST_TIMEOUT_SECONDS="1", LOG_FORMAT="json")
    terminal = pexpect.spawn(
        "make", ["dev"], cwd=str(service), env=environment, timeout=START_SECONDS, encoding="utf-8"
    )
    try:
        terminal.expect("Try it:")
        statements = (
            "SELECT count(*), current_database() FROM billing.invoices",
            "SHOW idle_in_transaction_session_timeout",
        )
        asked = ["make", "--silent", "psql", "ARGS=-tA " + " ".join(f"-c '{each}'" for each in statements)]
        found = subprocess.run(asked, cwd=service, env=service_environment(), capture_output=True, text=True)
        assert (found.stdout, found.stderr) == ("0|billing\n1d\n", "")
        assert before.count(line) == 1
        route.write_text(before.replace(line, f"    breakpoint()\n{line}"))
        url = f"http://127.0.0.1:{port}/v1/invoices/{UUID(int=7)}"
        with ThreadPoolExecutor(1) as other:
            answer = other.submit(answered_by_new_code, url, printed_token(service))
            terminal.expect(re.escape("(Pdb) "))
            terminal.sendline("p invoice_id")
            terminal.expect(re.escape(repr(UUID(int=7))))
            time.sleep(2)  # longer than the request may take
            terminal.sendline("continue")
            assert answer.result(START_SECONDS) == 404
    finally:
        route.write_text(before)
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        terminal.close()


def answered_by_new_code(url: str, token: str) -> int:
    """Ask until the service has reloaded: the old code answers at once, and the new code waits at its prompt."""
    while True:
        asked = time.monotonic()
        with suppress(httpx2.TransportError):
            status = httpx2.get(url, headers=bearer(token), timeout=START_SECONDS).status_code
            if time.monotonic() - asked > 2:
                return status
        time.sleep(0.2)


IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "Test"), ("EMAIL", "test@example.com"))
}


def answer_every_question(template: Path, folder: Path) -> list[str]:
    """Copy as a person at a terminal does: a name, then Enter for each default. Returns the commands of the last message."""
    # pexpect.spawn is no choice here: it forks this process, with the threads and locks of other tests.
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 200))
    process = subprocess.Popen(
        [sys.executable, "-m", "copier", "copy", "-d", "chassis_parts=[traces]", str(template), "billing"],
        cwd=folder,
        env={**service_environment(), "TERM": "xterm", "COPIER_SETTINGS_PATH": str(folder / "none.yml")},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    terminal = fdpexpect.fdspawn(ours, encoding="utf-8", timeout=60)
    questions = usual_questions()
    shown = [*(question["help"][:30] for question in questions.values()), "Next:"]
    terminal.expect_exact(shown[0])
    for name, following in zip(questions, shown[1:], strict=True):
        press(terminal, "\x1b\r" if name == "aggregates" else "\r", following)
    rest = terminal.read()
    terminal.close()
    assert process.wait() == 0, rest
    return [line.strip() for line in rest.splitlines() if line.startswith("  ")]


def press(terminal: fdpexpect.fdspawn, key: str, following: str) -> None:
    """Press the key until the following text is shown: a prompt that is still being drawn ignores keys."""
    for _ in range(10):
        terminal.expect(pexpect.TIMEOUT, timeout=0.3)  # this is usually enough for the prompt to be drawn
        terminal.send(key)
        if terminal.expect_exact([following, pexpect.TIMEOUT], timeout=15) == 0:
            return
    pytest.fail(f"{following} did not come:\n{terminal.before}")


def usual_questions() -> dict[str, Any]:
    """The questions of a person who answers each with its default, in order."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!include", lambda *_: None)
    parts = yaml.load_all((ROOT / "copier.yml").read_text(), loader)
    questions = {name: it for part in parts for name, it in part.items() if not name.startswith("_")}
    # The condition of the first question, can_start(), is false only if the copy cannot succeed, so that question counts as asked.
    asked = {
        name: it
        for name, it in questions.items()
        if it.get("ask", True) and (it.get("when", True) is True or "can_start()" in str(it["when"]))
    }
    assert len(asked) <= 10
    return asked


@contextmanager
def dev(service: Path, *command: str) -> Generator[subprocess.Popen[str]]:
    log = service / ".dev" / "test.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=service,
            env=service_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    everything = [psutil.Process(process.pid)]
    try:
        yield process
    finally:
        everything = family(process) or everything
        for one in everything:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Return the output of the service, once it has `text` and the paragraph after it."""
    log = Path(f"/proc/{process.pid}/cwd") if sys.platform == "linux" else None
    folder = log.resolve() if log else Path(psutil.Process(process.pid).cwd())
    file = folder / ".dev" / "test.log"
    whole = re.compile(r".*" + re.escape(text) + r"\n\n.*?\n\n", re.DOTALL)
    with suppress(TimeoutError):
        wait_until(
            lambda: process.poll() is not None or whole.search(file.read_text()) is not None, seconds=START_SECONDS
        )
    found = whole.search(file.read_text())
    if found is None:
        pytest.fail(f"{process.args} did not print {text!r} (exit: {process.poll()}), but:\n{file.read_text()}")
    return found[0]


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process.pid)
    except psutil.NoSuchProcess:
        return []
    return [parent, *parent.children(recursive=True)]


def assert_all_gone(everything: list[psutil.Process], output: str) -> None:
    assert len(everything) >= 4, everything  # make, dev, postgres, uvicorn
    ports = [urlsplit(url).port for url in re.findall(r"\w+://[^\s'\\]+", output)]
    assert ports

    wait_until(
        lambda: not any(alive(one) for one in everything) and not any(answers(port) for port in ports),
        seconds=STOP_SECONDS,
    )


def alive(one: psutil.Process) -> bool:
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # the process ended between the two calls
        return False


def answers(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) == 0


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def fetch(url: str, token: str = "") -> int:
    try:
        return httpx2.get(url, headers=bearer(token)).status_code
    except httpx2.HTTPError:
        return 0
