"""A release and its rollback, in the order of deploy/release.sh, under load: no request fails, and no event is lost.

The new version has one more field, from the table to the event. Two contrasts show failures: a pod that does not drain,
and a column that is dropped while a version that uses it still runs.
"""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
from chassis.dev import embedded
from chassis.dev.embedded import nats_server

from tests.service.rolling.cluster import MIGRATE_SECONDS, REPLICAS, Cluster, Image, cluster
from tests.service.rolling.load import CALLERS, Listener, Load, callers, listener
from tests.support.event_handler import APPROVED, issue_invoices_on
from tests.support.services import Render
from tests.support.tokens import trusted_issuer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rolling")]

FIELDS = "number: string(40), customer_id: uuid, total: money, due_on: date?, note: text?"
PURCHASE_ORDER = "PO-2027-118"
CHANGED_BY_OLD = "changed by the old version, which knows no such field"
CONTRACT = "src/billing/messaging/invoices.py"


@dataclass
class Outcome:
    """The results of the release, of the rollback, and of the two contrasts after them."""

    loads: dict[str, Load]
    """The loads by phase: `release`, `between`, `rollback`; `no drain`, `contract first`."""
    ended: list[int]
    """The exit statuses of the replaced pods."""
    heard: list[dict[str, Any]]
    """The events. These and the following values are from the end of the rollback."""
    invoices: dict[UUID, dict[str, Any]]
    """The rows, by their id."""
    revisions: set[str]
    left: dict[str, int]
    """The number of unsent and unprocessed rows in each of the chassis' tables."""

    @property
    def issued(self) -> set[UUID]:
        return set().union(*(self.loads[name].issued for name in ("release", "between", "rollback")))


@pytest.fixture(scope="module")
def old(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("old") / "service"
    shutil.copytree(render(messaging_style="events", aggregates=f"Invoice: {{{FIELDS}}}"), folder)
    issue_invoices_on(APPROVED, folder)
    return Image("1.0.0", folder)


@pytest.fixture(scope="module")
def new(old: Image, render: Render, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The same service with one more field, as in docs/how-to/add-a-field.md: in every layer, with a migration."""
    folder = tmp_path_factory.mktemp("new") / "service"
    with_field = render(messaging_style="events", aggregates=f"Invoice: {{{FIELDS}, purchase_order: string(40)?}}")
    versions = "src/billing/migrations/versions"
    shutil.copytree(with_field, folder)
    issue_invoices_on(APPROVED, folder)
    shutil.rmtree(folder / versions)
    shutil.copytree(old.folder / versions, folder / versions)
    contract = (folder / CONTRACT).read_text()
    line = "    purchase_order: Annotated[fields.Text, Field(max_length=40)] | None\n"
    assert contract.count(line) == 1
    (folder / CONTRACT).write_text(contract.replace(line, line.rstrip() + " = None\n"))
    image = Image("2.0.0", folder)
    command = [*image.command("revision"), "-m", "add purchase order"]
    env = image.environment({})
    written = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=MIGRATE_SECONDS)
    assert written.returncode == 0, written.stderr
    return image


@pytest.fixture(scope="module")
async def outcome(old: Image, new: Image, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder, base = tmp_path_factory.mktemp("rolling"), new.folder / "deploy/base"
    with embedded.temporary_postgres() as database, nats_server.temporary_nats() as broker, trusted_issuer() as trusted:
        settings = {"DATABASE_URL": database, "BROKER_URL": broker, **trusted.settings}
        async with cluster(folder, base, releases=3, **settings) as running:
            await running.start(old)
            async with listener(broker) as listening:
                return await there_and_back(running, listening, old, new, trusted.headers("invoices"))


async def there_and_back(
    running: Cluster, listening: Listener, old: Image, new: Image, headers: dict[str, str]
) -> Outcome:
    loads: dict[str, Load] = {}

    @asynccontextmanager
    async def load(name: str, **fields: Any) -> AsyncGenerator[Load]:
        async with callers(running.balancer.bases, listening.stream, headers, **fields) as loads[name]:
            yield loads[name]

    async with load("release"):
        ended = await running.release(new)
    # Callers send the new field once every pod knows it, and stop when that version is rolled back.
    async with load("between", purchase_order=PURCHASE_ORDER) as between:
        await between.until(lambda load: len(load.issued) > CALLERS)
    async with load("rollback"):
        # These last pods have no drain. The failures come when the test stops them.
        ended += await running.release(old, DRAIN_SECONDS="0")
    async with httpx2.AsyncClient(base_url=running.balancer.bases[0], headers=headers) as client:
        path = f"/v1/invoices/{min(between.issued)}"
        patched = await client.patch(path, json={"note": CHANGED_BY_OLD}, headers={"If-Match": "*"})
        assert patched.status_code == 200, patched.text
    await listening.until_it_has_heard_of(set().union(*(load.issued for load in loads.values())))
    connection = await asyncpg.connect(running.settings["DATABASE_URL"])
    outcome = Outcome(
        loads,
        ended,
        list(listening.heard),
        {row["id"]: dict(row) for row in await connection.fetch("SELECT * FROM billing.invoices")},
        {row["version_num"] for row in await connection.fetch("SELECT version_num FROM billing.alembic_version")},
        {table: await connection.fetchval(f"SELECT count(*) FROM chassis.{table}") for table in ("outbox", "parked")},
    )

    async with load("no drain") as undrained:
        await undrained.until(lambda load: load.answered.total() > 2 * CALLERS)
        told, other = running.serve.pods
        await running.serve.remove(told)
        await running.balancer.until_it_sends_to({other.port})
    async with load("contract first") as contracted:
        await connection.execute("ALTER TABLE billing.invoices DROP COLUMN note")
        await contracted.until(lambda load: load.failures)
    await connection.close()
    return outcome


ROLLS = pytest.mark.parametrize("name", ["release", "rollback"])


@ROLLS
def test_no_request_fails_while_pods_of_both_versions_answer(outcome: Outcome, name: str) -> None:
    load = outcome.loads[name]
    assert load.failures == []
    assert min(load.answered["old"], load.answered["new"]) > CALLERS, load.answered


def test_between_rollout_and_rollback_one_version_alone_answers(outcome: Outcome) -> None:
    assert outcome.loads["between"].failures == []
    assert outcome.loads["between"].answered.keys() == {"new"}
    assert outcome.loads["no drain"].answered.keys() == {"old"}


@ROLLS
def test_every_event_that_was_accepted_is_heard_and_once(outcome: Outcome, name: str) -> None:
    issued = outcome.loads[name].issued
    heard = Counter(UUID(event["invoice_id"]) for event in outcome.heard)
    assert {invoice: heard[invoice] for invoice in issued} == dict.fromkeys(issued, 1)
    assert heard.keys() == outcome.issued, "and of nothing that was not accepted"
    assert outcome.left == {"outbox": 0, "parked": 0}


def test_every_change_that_was_accepted_is_stored_and_once(outcome: Outcome) -> None:
    changed = min(outcome.loads["between"].issued)
    versions = {invoice: row["version"] for invoice, row in outcome.invoices.items() if row["status"] == "issued"}
    # Three versions: created, noted, issued. An answer or an event confirms the third, which must happen only once.
    assert versions == {**dict.fromkeys(outcome.issued, 3), changed: 4}


def test_events_of_both_versions_hold_the_fields_that_old_listeners_know(outcome: Outcome, old: Image) -> None:
    known = json.loads((old.folder / "tests/messaging/golden/invoice_issued_v1.json").read_text()).keys()
    shapes = {frozenset(event) for event in outcome.heard}
    assert shapes == {frozenset(known), frozenset(known | {"purchase_order"})}


def test_a_rollback_leaves_the_new_schema_and_the_rows_of_the_new_version(outcome: Outcome) -> None:
    assert outcome.revisions == {"0002", "chassis_0003"}
    kept = {invoice: row for invoice, row in outcome.invoices.items() if row["purchase_order"] == PURCHASE_ORDER}
    assert kept.keys() == outcome.loads["between"].issued
    assert CHANGED_BY_OLD in {row["note"] for row in kept.values()}


def test_every_pod_ends_by_itself_within_its_grace_period(outcome: Outcome) -> None:
    assert outcome.ended == [0] * (2 * len(("serve", "work")) * REPLICAS)


def test_the_same_callers_notice_a_pod_that_does_not_drain(outcome: Outcome) -> None:
    assert outcome.loads["no drain"].failures


def test_the_same_callers_notice_a_column_that_is_dropped_before_its_last_user_is_gone(outcome: Outcome) -> None:
    assert "500" in outcome.loads["contract first"].failures[0]
