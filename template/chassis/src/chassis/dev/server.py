"""`python -m <service> dev`: run a database, the migrations and the service, which reloads on change."""

import argparse
import contextlib
import errno
import json
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from chassis.application import api
from chassis.database import migrate
from chassis.dev import embedded, servers_file
from chassis.dev.migration_watch import MigrationWatch
from chassis.discovery import has_module
from chassis.service import Service
from chassis.settings import SettingsError, read

FOLDER = Path(".dev")
"""The folder of the development database. Git ignores it; delete it for an empty database."""

START_TIMEOUT_SECONDS = 30

DEBUG_PORT = 5678
"""The port at which editors look for debugpy."""


def add_arguments(parser: argparse.ArgumentParser, _: Service) -> None:
    parser.add_argument("--port", type=int, help="default: HTTP_PORT, or 8000; a free port if that port is taken")
    parser.add_argument(
        "--debug", action="store_true", help="wait for an editor's debugger (debugpy) before the service starts"
    )


def run(service: Service, _: None, options: argparse.Namespace) -> int:
    """Run until Ctrl-C, SIGTERM, or the end of the parent process. Stop all started processes at the end.

    If the environment has DATABASE_URL or BROKER_URL, that server is used; otherwise an embedded server with its data in
    `.dev/`.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _interrupt_once)
    parent = os.getppid()
    with contextlib.ExitStack() as stack:
        try:
            embedded_urls: dict[str, str] = {}
            if not os.environ.get("DATABASE_URL"):
                embedded_urls["DATABASE_URL"] = stack.enter_context(_database(service))
            if service.messages:
                os.environ.setdefault("RUN_WORKER", "true")
                if not os.environ.get("BROKER_URL"):
                    from chassis.dev.embedded import nats_server  # a service without messages has no such file

                    embedded_urls["BROKER_URL"] = stack.enter_context(nats_server.nats(FOLDER / "nats", durable=True))
            if service.auth is not None:
                embedded_urls |= trusted_issuer(service, stack)
            servers_file.write(embedded_urls)
            os.environ.update(embedded_urls)
            url = os.environ["DATABASE_URL"]
            settings = read(service.settings)
            wanted = options.port or settings.http_port
            listener = stack.enter_context(_listen("127.0.0.1", wanted))
            host, port = listener.getsockname()
            traces, telemetry = "", {}
            # A receiver of the team, if there is one, gets the traces.
            if has_module("chassis.dev.viewer.server") and not settings.otel_exporter_otlp_endpoint:
                from chassis.dev.viewer import server as viewer

                page = stack.enter_context(viewer.running(FOLDER / "viewer"))
                traces, telemetry = page.url, page.settings_for(service.name)
            debug_port = _free_debug_port() if options.debug else None
            process = _spawn(service, listener, telemetry, debug_port)
            stack.callback(process.stop)
            migrations = MigrationWatch(service, url)
            # Both lines run while the service imports its libraries.
            migrate.upgrade(service, url)
            welcome = _welcome(service, url, f"http://{host}:{port}", traces)
            if debug_port:
                print(f"\n  {service.name} waits for a debugger on 127.0.0.1:{debug_port}.", flush=True)
            _wait_until_alive(
                process, f"http://{host}:{port}/livez", math.inf if options.debug else START_TIMEOUT_SECONDS
            )
            if port != wanted:
                print(f"\n  Port {wanted} is taken, so the service has another port.", flush=True)
            print(welcome, flush=True)
            # A killed parent cannot stop us, but its end gives this process another parent.
            while process.child.poll() is None and os.getppid() == parent:
                time.sleep(0.2)
                migrations.look()
            return process.child.returncode or 0
        except KeyboardInterrupt:
            print(f"\n{service.name}: stopped", flush=True)
            return 0
        except (
            embedded.EmbeddedServerError,
            migrate.DatabaseUnusable,
            migrate.MigrationFailed,
            _NotAlive,
        ) as error:
            print(f"{service.name}: {error}", file=sys.stderr)
            if isinstance(error, migrate.HistoryDiffers):
                print(
                    "If you have edited the newest migration while `make dev` was stopped: undo the edit, start `make dev`, "
                    "and repeat the edit, so that `make dev` applies the migration again. "
                    f"Or delete {FOLDER}/, which holds the database of `make dev`, to start with an empty database.",
                    file=sys.stderr,
                )
            return 1
        except SettingsError as error:
            print(f"{service.name} cannot start:\n{error}", file=sys.stderr)
            return 2


def trusted_issuer(service: Service, stack: contextlib.ExitStack) -> dict[str, str]:
    """Run an issuer, unless OIDC_ISSUER names one, such as that of another service. The default audience is the service's name."""
    os.environ.setdefault("OIDC_AUDIENCE", service.name)
    if os.environ.get("OIDC_ISSUER"):
        return {}
    from chassis.dev.issuer import Issuer  # a service without identity has no such file

    issuer = stack.enter_context(Issuer(service.name).running())
    return {"OIDC_ISSUER": issuer.url, "OIDC_AUDIENCE": os.environ["OIDC_AUDIENCE"]}


def _interrupt_once(*_: object) -> None:
    # Ctrl-C arrives more than once, from the terminal and from make. Only the first signal starts the clean-up.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextlib.contextmanager
def _database(service: Service) -> Any:
    """Run the embedded server, create the service's database if absent, and yield its URL."""
    import asyncio

    import asyncpg

    async def create(server: str) -> None:
        connection = await asyncpg.connect(server)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", service.schema):
                await connection.execute(f'CREATE DATABASE "{service.schema}"')
            # These limits replace the chassis' shorter limits: a transaction stays open while a debugger's prompt is open.
            for limit in ("idle_in_transaction_session_timeout", "transaction_timeout"):
                await connection.execute(f"ALTER DATABASE \"{service.schema}\" SET {limit} = '1d'")
        finally:
            await connection.close()

    with embedded.postgres(FOLDER / "postgres", durable=True) as server:
        asyncio.run(create(server))
        yield server.rpartition("/")[0] + f"/{service.schema}"


def _listen(host: str, port: int) -> socket.socket:
    """Open a listening socket on `port`, or on a free port if another process has that port.

    The server inherits the socket, because a port that was only probed may be taken before the server binds it. Raises
    _NotAlive if the port cannot be used for another reason, such as a missing permission.
    """
    try:
        return socket.create_server((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise _NotAlive(
                f"cannot listen on {host}:{port}: {error.strerror}. HTTP_PORT, or the option --port, names another port"
            ) from error
        return socket.create_server((host, 0))


def _free_debug_port() -> int:
    with _listen("127.0.0.1", DEBUG_PORT) as listener:
        return listener.getsockname()[1]


def _spawn(
    service: Service, listener: socket.socket, telemetry: dict[str, str], debug_port: int | None
) -> embedded.Process:
    (package,) = service.package.__path__
    reload = ["--reload", "--reload-dir", package, "--reload-dir", str(Path(__file__).parent.parent)]
    program = [sys.executable]
    if debug_port:
        # debugpy follows uvicorn into each new process after a reload. With frozen modules it prints a warning.
        program += ["-X", "frozen_modules=off", "-m", "debugpy"]
        program += ["--listen", f"127.0.0.1:{debug_port}", "--wait-for-client"]
    server = [*program, "-m", "uvicorn", "--factory", f"{service.package.__name__}.main:create_app", *reload]
    server += ["--fd", str(listener.fileno()), "--http", "chassis.dev.http_protocol:Protocol", "--no-server-header"]
    server += [
        "--no-access-log",
        "--log-level",
        "warning",
        "--loop",
        "asyncio",
    ]  # chassis.dev.debugger needs asyncio's loop
    port = listener.getsockname()[1]
    shown = {
        "LOG_FORMAT": "console",
        "LOG_REQUESTS": "true",
        "LOG_MESSAGES": "true",
        "SERVE_DOCS": "true",
        "PROBE_DETAILS": "true",
    }
    debugger = {"PYTHONBREAKPOINT": "chassis.dev.debugger.set_trace"}
    if debug_port:
        # The clock goes on while an editor has stopped the service. An hour is the longest limit that settings accept.
        limits = dict.fromkeys(("REQUEST_TIMEOUT_SECONDS", "MESSAGE_TIMEOUT_SECONDS"), "3600")
        debugger = {"PYTHONBREAKPOINT": "debugpy.breakpoint"} | limits
    env = {**shown, **debugger, **os.environ, **telemetry, "HTTP_PORT": str(port)}
    # The prompt of a debugger reads the terminal.
    stdin = None if sys.stdin and sys.stdin.isatty() else subprocess.DEVNULL
    return embedded.spawn(server, stop_signal=signal.SIGTERM, env=env, pass_fds=[listener.fileno()], stdin=stdin)


class _NotAlive(Exception):
    pass


def _wait_until_alive(process: embedded.Process, url: str, seconds: float) -> None:
    # Use no proxy of the environment, because a proxy does not reach this machine.
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), straight.open(url, timeout=1):
            return
        if process.child.poll() is not None:
            raise _NotAlive("the service did not start: its output above has the reason")
        time.sleep(0.05)
    raise _NotAlive(f"the service did not answer {url} within {seconds} s: its output above may have the reason")


def _welcome(service: Service, url: str, base: str, traces: str) -> str:
    document = first_aggregate_first(service.versions, api(service).openapi())
    program = f"{os.path.relpath(sys.executable)} -m {service.package.__name__}"
    lines = [
        "",
        f"  {service.name} is running and reloads when you save a file. Ctrl-C stops everything.",
        "",
        f"  API         {base}{_first_collection(document)}",
        f"  docs        {base}/docs",
        *([f"  tokens      {program} token --help"] if service.auth else []),
        f"  readiness   {base}/readyz",
        *([f"  traces      {traces}"] if traces else []),
        f"  database    {url}",
        *([f"  broker      {os.environ['BROKER_URL']}"] if service.messages else []),
        "",
    ]
    token = None
    if service.auth is not None:
        from chassis.dev.issuer import developer_token

        token = developer_token(document)
    if example := _example_request(document, base, token):
        lines += ["  Try it:", "", *(f"    {line}" for line in example), ""]
    return "\n".join(lines)


def first_aggregate_first(versions: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Put the paths of the first migration's table first: its rows refer to no other table, so the example works."""
    first = min(versions.glob("[0-9]*_create_*.py"), default=versions).stem.partition("_create_")[2].replace("_", "-")
    return document | {
        "paths": dict(sorted(document["paths"].items(), key=lambda item: first not in item[0].split("/")))
    }


def _first_collection(document: dict[str, Any]) -> str:
    return next((path for path, operations in document["paths"].items() if "get" in operations), "/docs")


def _example_request(document: dict[str, Any], base: str, token: str | None) -> list[str]:
    """Make a curl command for the first POST of the API, from the examples in its document."""
    for path, operations in document["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if content and "{" not in path:
            body = shlex.quote(json.dumps(_example(content["schema"], document)))
            lines = [f"curl -i {base}{path} \\", "  -H 'Content-Type: application/json' \\"]
            lines += [f"  -H 'Authorization: Bearer {token}' \\"] if token else []
            return [*lines, f"  -d {body}"]
    return []


def _example(schema: dict[str, Any], document: dict[str, Any]) -> Any:
    if reference := schema.get("$ref"):
        return _example(document["components"]["schemas"][reference.rpartition("/")[2]], document)
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], document)
    if schema.get("type") == "array":
        return [_example(schema["items"], document)]
    properties = schema.get("properties", {})
    return {name: _example(properties[name], document) for name in schema.get("required", [])}
