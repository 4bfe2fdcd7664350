"""The order of the chassis' parts, which template/chassis/pyproject.toml lists: imports point down."""

import shutil
from pathlib import Path

import pytest

from tests.support.imports import lint_imports
from tests.support.paths import ROOT

# A module, an import in it, and the reason why the import is wrong.
WRONG = {
    "a broker imports a sibling": ("brokers/__init__.py", "from chassis.telemetry import logs", "chassis.brokers"),
    "production imports what is for development": (
        "web/server.py",
        "import chassis.dev.embedded",
        "chassis.web.server",
    ),
    "the application imports what is for development": (
        "application.py",
        "import chassis.dev.embedded",
        "chassis.application",
    ),
    "a broker imports another broker": (
        "brokers/kafka/publisher.py",
        "import chassis.brokers.nats.broker",
        "chassis.brokers.kafka.publisher",
    ),
    "modules of one folder import each other in a circle": (
        "messaging/lane.py",
        "import chassis.messaging.consumer",
        "lane",
    ),
    "a wing imports a public module above it": ("database/pool.py", "import chassis.http", "chassis.database.pool"),
    "HTTP imports messaging": ("web/probes.py", "import chassis.messaging.worker", "chassis.web.probes"),
    "telemetry imports the database": ("telemetry/logs.py", "import chassis.database", "chassis.telemetry.logs"),
    "an import inside of a function": ("errors.py", "def ask():\n    import chassis.service", "chassis.errors"),
    "a module has no place": ("new.py", "", "chassis.new"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "line", "named"), WRONG.values(), ids=WRONG)
def test_lint_imports_refuses_a_wrong_import_and_a_module_without_a_place(
    tmp_path: Path, path: str, line: str, named: str
) -> None:
    copy = Path(shutil.copytree(ROOT / "template/chassis", tmp_path / "chassis"))
    with (copy / "src/chassis" / path).open("a") as module:
        module.write(f"\n{line}\n")
    status, said = lint_imports(copy, source=copy / "src")
    assert status == 1
    assert named in said


def test_all_imports_of_the_chassis_point_down() -> None:
    chassis = ROOT / "template/chassis"
    status, said = lint_imports(chassis, source=chassis / "src")
    assert status == 0, said
