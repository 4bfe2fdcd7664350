"""A process loads only the code that it uses: no messaging without messages, and no development code in production."""

import json
import subprocess
import sys

import pytest

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


SERVE = """
import json, sys
from chassis import commands
from chassis.web import server
from tests.chassis.tiny.main import SERVICE

server.serve = lambda app: print(json.dumps(sorted(sys.modules)))
commands.main(SERVICE, ["serve"])
"""


def modules_loaded_by(script: str, database_url: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(DATABASE_URL=database_url),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_a_service_without_messages_loads_nothing_of_messaging(database_url: str) -> None:
    loaded = modules_loaded_by(SCRIPT, database_url)
    assert "chassis.application" in loaded
    assert {name for name in loaded if name.startswith(("chassis.messaging", "chassis.brokers"))} == set()
    assert loaded & CLIENTS == set()


@pytest.mark.slow
def test_a_service_in_production_loads_nothing_for_development(database_url: str) -> None:
    loaded = modules_loaded_by(SERVE, database_url)
    assert "chassis.application" in loaded
    assert {name for name in loaded if name.startswith(("chassis.dev", "chassis.testing"))} == set()
