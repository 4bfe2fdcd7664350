"""Two workers of shop and one of its bank, with a link from each of them to each server, for the chaos of sagas."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from chassis.database import migrate

from tests.service.chaos.bank.main import SERVICE as BANK
from tests.service.chaos.shop.main import SERVICE as SHOP
from tests.service.chaos.system import Part, Postgres, System, create
from tests.support import brokers
from tests.support.link import Link

IDLE_IN_TRANSACTION = "3s"
"""How long the database lets a stopped worker keep its row locks."""


@contextlib.contextmanager
def shop_and_bank(broker: str, *, mutant: str | None = None) -> Generator[System]:
    """Start two workers of shop and one of the bank, with a link from each of them to each server."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sagas-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        made = System({}, {}, "", folder)
        ports = {"database": brokers.free_port(), "broker": brokers.free_port()}
        shared: dict[str, Link] = {}
        options = {}
        if broker == "kafka":  # its clients connect to the address that the broker names, so they share a link
            shared["broker"] = made.links["all-broker"] = stack.enter_context(_link(ports["broker"]))
            options["advertised_port"] = shared["broker"].port
        for name in ("postgres", "broker"):
            (folder / name).mkdir()
        running = stack.enter_context(brokers.BROKERS[broker](folder / "broker", ports["broker"], **options))
        postgres = Postgres(folder / "postgres", ports["database"])
        postgres.start()
        stack.callback(postgres.stop)
        for service in (SHOP, BANK):
            made.databases[service.name] = urlsplit(postgres.url)._replace(path=f"/{service.name}").geturl()
        asyncio.run(create(postgres.url, list(made.databases)))
        for service in (SHOP, BANK):
            asyncio.run(_limit(made.databases[service.name], service.name))
            migrate.upgrade(service, made.databases[service.name])
        made.parts = {"broker": running, "postgres": postgres}
        for name in ("shop", "shop-2", "bank"):
            service = name.partition("-")[0]
            ways = {"database": made.databases[service], "broker": running.url}
            for server, port in ports.items():
                link = shared.get(server)
                if link is None:
                    link = made.links[f"{name}-{server}"] = stack.enter_context(_link(port))
                ways[server] = link.through(ways[server])
            settings = {
                "DATABASE_URL": ways["database"],
                "BROKER_URL": ways["broker"],
                "HTTP_PORT": str(brokers.free_port()),
                "DRAIN_SECONDS": "0",
                "DIE_ORDER": str(die_order(folder, name)),
                "MUTANT": mutant or "",
            }
            program = [sys.executable, "-m", f"tests.service.chaos.{service}", "work"]
            made.parts[name] = part = Part(program, folder / f"{name}.log", **settings)
            part.start()
            stack.callback(part.stop)
        yield made


def die_order(folder: Path, name: str) -> Path:
    """Return the path of the file that, once it exists, lets this worker die after its next commit."""
    return folder / f"{name}.die"


def _link(port: int) -> Link:
    return Link(f"tcp://127.0.0.1:{port}")


async def _limit(url: str, name: str) -> None:
    """Let the server end a stopped worker's transaction soon: the chassis keeps a limit that the database sets."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}'")
    await connection.close()
