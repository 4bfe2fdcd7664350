"""The order of the chassis' parts, which template/chassis/pyproject.toml lists: imports point down."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import lint_imports
from tests.support.paths import ROOT

# A module, an import in it, and the line that names the import among the broken contracts.
WRONG = {
    "a broker imports a sibling": (
        "brokers/__init__.py",
        "from chassis.telemetry import logs",
        "chassis.brokers -> chassis.telemetry.logs",
    ),
    "production imports what is for development": (
        "web/server.py",
        "import chassis.dev.embedded",
        "chassis.web.server -> chassis.dev.embedded",
    ),
    "the application imports what is for development": (
        "application.py",
        "import chassis.dev.embedded",
        "chassis.application -> chassis.dev.embedded",
    ),
    "a broker imports another broker": (
        "brokers/kafka/publisher.py",
        "import chassis.brokers.nats.broker",
        "chassis.brokers.kafka.publisher -> chassis.brokers.nats.broker",
    ),
    "modules of one folder import each other in a circle": (
        "messaging/lane.py",
        "import chassis.messaging.consumer",
        "- .lane -> .consumer",
    ),
    "a wing imports a public module above it": (
        "database/pool.py",
        "import chassis.http",
        "chassis.database.pool -> chassis.http",
    ),
    "HTTP imports messaging": (
        "web/probes.py",
        "import chassis.messaging.worker",
        "chassis.web.probes -> chassis.messaging.worker",
    ),
    "telemetry imports the database": (
        "telemetry/logs.py",
        "import chassis.database",
        "chassis.telemetry.logs -> chassis.database",
    ),
    "an import inside of a function": (
        "errors.py",
        "def ask():\n    import chassis.service",
        "chassis.errors -> chassis.service",
    ),
    "a module has no place": ("new.py", "", "- chassis.new\n"),
}


@pytest.mark.slow
def test_lint_imports_refuses_each_wrong_import_and_a_module_without_a_place(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ROOT / "template/chassis", tmp_path / "chassis"))
    for path, line, _ in WRONG.values():
        with (copy / "src/chassis" / path).open("a") as module:
            module.write(f"\n{line}\n")
    status, said = lint_imports(copy, source=copy / "src")
    assert status == 1
    assert [name for name, (*_, named) in WRONG.items() if named not in said] == [], said


def test_all_imports_of_the_chassis_point_down() -> None:
    chassis = ROOT / "template/chassis"
    status, said = lint_imports(chassis, source=chassis / "src")
    assert status == 0, said


QUICK = """
import asyncio, gc, sys
collections = []
gc.callbacks.append(lambda phase, _: collections.append(phase))
import chassis.commands, chassis.application
print(len(collections), gc.isenabled(), "rich" in sys.modules)
import rich
"""
MOST_COLLECTIONS = 50
"""The most runs of the garbage collector while a command is imported. Without chassis/quick_imports.py there are 300."""


def test_a_command_starts_without_collecting_garbage_and_without_rich_which_a_team_may_still_import() -> None:
    shown = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True, check=True).stdout.split()
    assert (int(shown[0]) < MOST_COLLECTIONS, *shown[1:]) == (True, "True", "False"), shown


def test_a_plugin_of_pydantic_may_import_rich(tmp_path: Path) -> None:
    plugin = "import rich\n\nclass Plugin:\n    def new_schema_validator(self, *_):\n        return None, None, None\n\nplugin = Plugin()\n"
    (tmp_path / "rich_plugin.py").write_text(plugin)
    installed = tmp_path / "rich_plugin-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: rich-plugin\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[pydantic]\nrich_plugin = rich_plugin:plugin\n")

    command = [sys.executable, "-c", "import sys, chassis.commands; print('rich_plugin' in sys.modules)"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert (run.stdout, run.stderr) == ("True\n", "")
