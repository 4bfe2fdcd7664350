"""The imports of a process: a service without messages loads neither messaging nor a broker nor its client."""

import json
import subprocess
import sys

from tests.chassis.processes import environment
from tests.support.paths import ROOT

CLIENTS = {"aiokafka", "aiormq", "nats", "pamqp"}

SCRIPT = """
import asyncio, json, sys
from tests.chassis.tiny.main import SERVICE, create_app

async def run():
    app = create_app()
    async with app.router.lifespan_context(app):
        import chassis.commands, chassis.database.migrate, chassis.dev.server, chassis.web.server
        print(json.dumps(sorted(sys.modules)))

asyncio.run(run())
"""


def test_a_service_without_messages_loads_nothing_of_messaging(database_url: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment(DATABASE_URL=database_url),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(json.loads(ran.stdout.splitlines()[-1]))
    assert "chassis.application" in loaded
    assert {name for name in loaded if name.startswith(("chassis.messaging", "chassis.brokers"))} == set()
    assert loaded & CLIENTS == set()
