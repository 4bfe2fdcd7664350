"""The chassis' migrations come with the update, independently of the team's own migrations, and lose no data.

The history is a rename of a column in the right order, expand before contract:

- v1.1.0 adds parked.cause, writes both columns, and reads either;
- v1.2.0 copies what is left in parked.reason, and does without it from there on;
- v1.3.0 drops parked.reason.

The code of a version runs from its files, in a process of its own. Other packages come from this environment.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from chassis.dev import embedded

from fleet.template.answers import Answers
from fleet.template.template import Template
from fleet.update.update import Options, update
from tests.fleet.services import commit
from tests.support.commands import git
from tests.support.event_handler import APPROVED, issue_invoices_on

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chassis-migrations")]

VERSIONS = ("v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0")

VERSIONS_FOLDER = "src/billing/migrations/versions"

MIGRATION = '''"""{summary}."""

from alembic import op

revision = "{revision}"
down_revision = "{down}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in {statements}:
        op.execute(statement)
'''

TEAM = {
    "0002": [
        "CREATE TABLE billing.dunnings (level int PRIMARY KEY)",
        "INSERT INTO billing.dunnings VALUES (1), (2)",
    ],
    "0003": ["ALTER TABLE billing.dunnings ADD COLUMN sent_at timestamptz"],
}

CHASSIS = {
    "0004_cause": ["ALTER TABLE chassis.parked ADD COLUMN cause text"],
    "0005_only_cause": [
        "UPDATE chassis.parked SET cause = reason WHERE cause IS NULL",
        "ALTER TABLE chassis.parked ALTER COLUMN reason DROP NOT NULL",
    ],
    "0006_no_reason": ["ALTER TABLE chassis.parked DROP COLUMN reason"],
}

TEN = ", ".join(f"${number}" for number in range(1, 11))

# For each line: a deployment. Migrate, report, and then use every table of the chassis: an invoice over HTTP, an event in, an event out,
# a parked message; and read all of them.
DEPLOY = """
import asyncio, json, os, sys, traceback, uuid
import asyncpg, httpx2
from billing.main import SERVICE, create_app
from chassis.messaging import parking
from chassis.brokers import Kind, Message
from chassis.commands import main
from chassis.testing import Mailbox

APPROVED = "approvals.invoice-approved.v1"
TABLES = ("chassis.outbox", "chassis.inbox", "chassis.parked", "billing.invoices", "billing.dunnings")

async def stored():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    rows = {table: await connection.fetchval(f"SELECT json_agg(t) FROM {table} t") for table in TABLES}
    revisions = await connection.fetchval("SELECT json_agg(version_num) FROM billing.alembic_version")
    await connection.close()
    return {"rows": {table: json.loads(found or "[]") for table, found in rows.items()}, "revisions": json.loads(revisions)}

async def work(name):
    app = create_app()
    transport = httpx2.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://here") as http:
        body = {"number": name, "customer_id": str(uuid.uuid4()), "total": {"amount": 100, "currency": "EUR"}}
        made = await http.post("/v1/invoices", json=body)
        assert made.status_code == 201, made.text
        invoice = made.json()["id"]
        database = app.state.database
        mailbox = Mailbox(database, SERVICE.messages)
        await mailbox.receive(APPROVED, {"invoice_id": invoice, "occurred_at": "2027-01-01T00:00:00Z"}, times=2)
        assert [sent.key for sent in await mailbox.sent()].count(invoice) == 1
        message = Message(Kind.EVENT, APPROVED, str(uuid.uuid4()), "key", b"{}")
        await parking.park(database, message, direction="incoming", reason=name, attempts=3)
        assert name in {parked.reason for parked in await parking.find(database)}

def deploy(name, migrates):
    if migrates and main(SERVICE, ["migrate"]) != 0:
        raise AssertionError("the database was not migrated")
    found = asyncio.run(stored())
    asyncio.run(work(name))
    return {"found": found}

for line in sys.stdin:
    try:
        said = deploy(*json.loads(line))
    except Exception:
        said = {"error": traceback.format_exc()}
    print("\\n" + json.dumps({"deployed": said}), flush=True)
"""


# --- the template's history -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def releases(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("history") / "slipway"
    shutil.copytree(template, repository)
    git(repository, "init", "--quiet", "--initial-branch", "main")
    release(repository, "v1.0.0")

    chassis_migration(repository, "0004_cause", after="0003")
    in_parking(
        repository,
        f"headers, reason, attempts)\n    VALUES ({TEN})",
        f"headers, reason, attempts, cause)\n    VALUES ({TEN}, $9)",
    )
    in_parking(repository, "headers, reason, attempts, parked_at", "headers, reason, attempts, cause, parked_at")
    in_parking(repository, 'row["reason"]', '(row["cause"] or row["reason"])')
    release(repository, "v1.1.0")

    chassis_migration(repository, "0005_only_cause", after="0004")
    in_parking(
        repository,
        f"headers, reason, attempts, cause)\n    VALUES ({TEN}, $9)",
        f"headers, cause, attempts)\n    VALUES ({TEN})",
    )
    in_parking(repository, "headers, reason, attempts, cause, parked_at", "headers, attempts, cause, parked_at")
    in_parking(repository, "octet_length(reason)", "octet_length(cause)")
    in_parking(repository, '(row["cause"] or row["reason"])', 'row["cause"]')
    release(repository, "v1.2.0")

    chassis_migration(repository, "0006_no_reason", after="0005")
    release(repository, "v1.3.0")
    return repository


def chassis_migration(repository: Path, name: str, *, after: str) -> None:
    number, summary = name.split("_", 1)
    script = MIGRATION.format(
        summary=summary, revision=f"chassis_{number}", down=f"chassis_{after}", statements=CHASSIS[name]
    )
    (repository / f"template/chassis/src/chassis/database/migrations/versions/chassis_{name}.py").write_text(script)


def in_parking(repository: Path, old: str, new: str) -> None:
    file = repository / "template/chassis/src/chassis/messaging/parking.py"
    text = file.read_text()
    assert text.count(old) == 1, f"parking.py has not one {old!r}: mend this history"
    file.write_text(text.replace(old, new))


def release(repository: Path, version: str) -> None:
    commit(repository, version)
    git(repository, "tag", version)


# --- the service, and its way through the versions --------------------------------------------------------------------


class Code:
    """One version of the service's files, as in an image, and a process that deploys the version as often as asked."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        # These folders come before the chassis that this environment has installed.
        path = f"{folder / 'src'}:{folder / 'chassis/src'}"
        env = os.environ | {"PYTHONPATH": path, "DATABASE_URL": url, "OTEL_SDK_DISABLED": "true"}
        command = [sys.executable, "-c", DEPLOY]
        self._process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=PIPE, stdout=PIPE, stderr=subprocess.STDOUT, text=True
        )

    def deploy(self, name: str, *, migrates: bool = True) -> dict[str, Any]:
        """Deploy, and return the state of the database before the deployment used the tables, or the error."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{json.dumps([name, migrates])}\n")
        self._process.stdin.flush()
        log = []
        for line in self._process.stdout:
            if line.startswith('{"deployed"'):
                return json.loads(line)["deployed"]
            log.append(line)
        pytest.fail("".join(log))

    def stop(self) -> None:
        self._process.communicate(timeout=60)


@dataclass(frozen=True)
class Seen:
    """The state that a deployment found right after its migrations."""

    rows: dict[str, list[dict[str, Any]]]
    revisions: list[str]


@dataclass(frozen=True)
class Journey:
    """A service that went from the oldest version to the newest, with a rollback by one version after each."""

    service: Path
    codes: dict[str, Code]
    deployed: dict[str, Seen]
    rolled_back: dict[str, Seen]


@pytest.fixture(scope="module")
def journey(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    folder = tmp_path_factory.mktemp("journey")
    service = folder / "billing"
    answers = f"_commit: v1.0.0\n_src_path: {releases}\nservice_name: billing\nmessaging_style: events\n"
    Template(str(releases)).at("v1.0.0").render(Answers.parse(answers.encode()), service)
    issue_invoices_on(APPROVED, service)
    git(service, "init", "--quiet", "--initial-branch", "main")
    team_migration(service, "0002", after="0001")
    with embedded.temporary_postgres() as url:
        journey = Journey(service, {}, {}, {})
        before = None
        for version in VERSIONS:
            if before:
                update(service, Options({}, version, finish=False))
            if version == "v1.2.0":
                team_migration(service, "0003", after="0002")
            journey.codes[version] = Code(shutil.copytree(service, folder / version), url)
            journey.deployed[version] = seen(journey.codes[version].deploy(version))
            if before:
                journey.rolled_back[version] = seen(journey.codes[before].deploy(f"{before} again"))
            before = version
        yield journey
        for code in journey.codes.values():
            code.stop()


def team_migration(service: Path, revision: str, *, after: str) -> None:
    script = MIGRATION.format(summary="Ours", revision=revision, down=after, statements=TEAM[revision])
    (service / VERSIONS_FOLDER / f"{revision}_ours.py").write_text(script)
    commit(service)


def seen(deployed: dict[str, Any]) -> Seen:
    assert "found" in deployed, deployed["error"]
    return Seen(**deployed["found"])


def without_reason(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row in the meaning of every version: the reason for parking is in one of two columns."""
    columns = ("cause", "reason", "sent_at")
    return {name: value for name, value in row.items() if name not in columns} | {
        "why": row.get("cause") or row.get("reason")
    }


def test_nothing_that_was_stored_is_lost_or_changed_by_a_later_version(journey: Journey) -> None:
    stops = list(journey.deployed.values())
    for earlier, later in pairwise(stops):
        for table, rows in earlier.rows.items():
            kept = [without_reason(row) for row in later.rows[table]]
            assert [row for row in rows if without_reason(row) not in kept] == [], table
    # One row of each earlier deployment, and one row of each rollback.
    assert {table: len(rows) for table, rows in stops[-1].rows.items()} == {
        "chassis.outbox": 5,
        "chassis.inbox": 5,
        "chassis.parked": 5,
        "billing.invoices": 5,
        "billing.dunnings": 2,
    }
    assert {row["cause"] for row in stops[-1].rows["chassis.parked"]} == {
        *VERSIONS[:-1],
        *(f"{version} again" for version in VERSIONS[:-2]),
    }


def test_the_database_is_at_the_head_of_both_branches_after_each_version(journey: Journey) -> None:
    assert {version: sorted(seen.revisions) for version, seen in journey.deployed.items()} == {
        "v1.0.0": ["0002", "chassis_0003"],
        "v1.1.0": ["0002", "chassis_0004"],
        "v1.2.0": ["0003", "chassis_0005"],
        "v1.3.0": ["0003", "chassis_0006"],
    }


def test_the_teams_migrations_stay_unchanged_in_their_places(journey: Journey) -> None:
    first, last = (journey.codes[version].folder / VERSIONS_FOLDER for version in (VERSIONS[0], VERSIONS[-1]))
    names = sorted(path.name for path in last.glob("*.py"))
    assert names == ["0001_create_invoices.py", "0002_ours.py", "0003_ours.py"]
    for name in names[:2]:
        assert (last / name).read_bytes() == (first / name).read_bytes()


def test_the_previous_version_works_on_the_newer_schema_and_keeps_that_schema(journey: Journey) -> None:
    # The deployment of the previous version has asserted that this version works.
    assert list(journey.rolled_back) == list(VERSIONS[1:])
    for version, seen in journey.rolled_back.items():
        assert sorted(seen.revisions) == sorted(journey.deployed[version].revisions)


def test_a_version_before_that_does_not_work_after_the_contract(journey: Journey) -> None:
    failed = journey.codes["v1.1.0"].deploy("two versions back", migrates=False)
    assert 'column "reason" of relation "parked" does not exist' in failed["error"]
