"""The commands of docs/how-to/back-up-and-restore.md run on real servers, and the claims of the page are true."""

import copy
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from chassis.commands import main
from chassis.database import migrate
from chassis.dev import embedded
from chassis.dev.embedded.postgresql import OPEN_TO_ALL
from chassis.service import Service

from tests.chassis.tiny_messages import EFFECTS
from tests.service.restoring import Billing, Neighbour, Server
from tests.support import brokers
from tests.support.how_to import blocks
from tests.support.query import ask
from tests.support.services import Render
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("restore")]

AGGREGATES = "Invoice:\n  status: none\n  events: state\n  number: string(40)\n  note: text?\n"
DUMP, ARCHIVE, BASE, _, RESTORE, RECOVER, RAISE, _, LOOK, FORGET, _, REPUBLISH = blocks("back-up-and-restore.md")
KEPT, LOST = UUID(int=1), UUID(int=2)
CONTENT = """
    SELECT json_build_object(
        'invoices', (SELECT json_agg(invoices ORDER BY id) FROM billing.invoices),
        'outbox', (SELECT json_agg(outbox ORDER BY seq) FROM chassis.outbox),
        'inbox', (SELECT json_agg(inbox ORDER BY message_id) FROM chassis.inbox),
        'effects', (SELECT json_agg(effects ORDER BY seq) FROM effects)
    )::text
"""


@pytest.fixture(scope="module")
def service(render: Render) -> Generator[Service]:
    folder = render(messaging_style="events-and-queues", broker="nats", aggregates=AGGREGATES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(folder / "src")
        yield importlib.import_module("billing.main").SERVICE
    for name in [name for name in sys.modules if name.partition(".")[0] == "billing"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    """Run a server that archives its changes as the page describes."""
    home = Path(tempfile.mkdtemp(prefix="restore-", dir=OPEN_TO_ALL if os.geteuid() == 0 else None))
    home.chmod(0o755)
    server = Server(home)
    try:
        with archived(server):
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def archived(server: Server) -> Generator[None]:
    with embedded.postgres(server.home, durable=False) as server.url:
        server.shell(f"mkdir -p /backups/wal {server.home / 'recovered'}")
        ask(server.url, "CREATE DATABASE billing")
        server.psql(ARCHIVE)
    with embedded.postgres(server.home, durable=False) as server.url:
        yield


@pytest.fixture(scope="module")
def original(service: Service, server: Server) -> Generator[Billing]:
    """The service some time after the backup: its neighbour has received more, and its consumer has read more, since then."""
    with brokers.nats() as broker:
        billing = Billing(service, server.database("billing"), broker.url, Neighbour())
        migrate.upgrade(service, billing.url)
        billing.run(EFFECTS)
        server.shell(BASE)
        live_until_the_backup(billing)
        server.moment = ask(billing.url, "SELECT clock_timestamp()::text")
        server.shell(DUMP)
        live_after_the_backup(billing)
        yield billing


def live_until_the_backup(billing: Billing) -> None:
    billing.create(KEPT, "first")
    billing.relay()
    billing.pay(1)
    billing.consume(1)
    billing.change(KEPT, "waits in the outbox")


def live_after_the_backup(billing: Billing) -> None:
    billing.relay()
    billing.change(KEPT, "lost")
    billing.create(LOST, "lost")
    billing.relay()
    billing.pay(2)
    billing.consume(1, 2)


@pytest.fixture(scope="module")
def dump(original: Billing, server: Server) -> str:
    """The name of the database that was restored from the dump."""
    server.shell(RESTORE)
    return "billing_restored"


@pytest.fixture
def restored(original: Billing, dump: str, server: Server) -> Generator[Billing]:
    """The service on the restored database, which each test may change."""
    ask(server.url, f"CREATE DATABASE one_test TEMPLATE {dump}")
    yield replace(original, url=server.database("one_test"), neighbour=copy.deepcopy(original.neighbour))
    ask(server.url, "DROP DATABASE one_test WITH (FORCE)")


def states(neighbour: Neighbour, invoice: UUID) -> list[tuple[int, str]]:
    found = [json.loads(message.body) for message in neighbour.heard]
    return [(each["version"], each["note"]) for each in found if each["invoice_id"] == str(invoice)]


def test_without_the_step_a_version_comes_again_and_the_neighbour_drops_the_change(restored: Billing) -> None:
    restored.change(KEPT, "new")
    restored.relay()
    assert [note for version, note in states(restored.neighbour, KEPT) if version == 3] == ["lost", "new"]
    assert restored.neighbour.invoices[str(KEPT)]["note"] == "lost"


def test_with_the_step_the_version_is_new_and_the_neighbour_takes_the_change(restored: Billing, server: Server) -> None:
    server.psql(RAISE, restored.url)
    restored.change(KEPT, "new")
    restored.relay()
    assert states(restored.neighbour, KEPT)[-1] == (1_000_003, "new")
    assert restored.neighbour.invoices[str(KEPT)]["note"] == "new"


def test_a_row_of_the_outbox_that_was_sent_leaves_again_under_the_same_id(restored: Billing, server: Server) -> None:
    assert "billing.invoice-saved.v1" in server.psql(LOOK, restored.url)
    before = list(restored.neighbour.heard)
    restored.relay()
    [again] = restored.neighbour.heard[len(before) :]
    assert [message.body for message in before if message.id == again.id] == [again.body]
    assert states(restored.neighbour, KEPT)[-1] == (2, "waits in the outbox")


def test_an_event_after_the_backup_has_its_effect_exactly_once_when_nats_delivers_the_event_again(
    restored: Billing,
) -> None:
    restored.pay(3)
    restored.consume(1, 3)
    restored.forget_position(FORGET)
    restored.consume(1, 3, 2)
    restored.forget_position(FORGET)
    restored.pay(4)
    restored.consume(1, 3, 2, 4)


def test_after_the_last_step_the_neighbour_has_exactly_the_invoices_of_the_restored_database(
    restored: Billing, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(LOST) in restored.neighbour.invoices
    server.psql(RAISE, restored.url)
    restored.neighbour.invoices.clear()
    monkeypatch.setenv("DATABASE_URL", restored.url)
    assert main(restored.service, REPUBLISH.partition(" -m billing ")[2].split()) == 0
    restored.relay()
    [(invoice, state)] = restored.neighbour.invoices.items()
    assert (invoice, state["version"], state["note"]) == (str(KEPT), 1_000_002, "waits in the outbox")


def test_recovery_ends_at_the_named_time_with_the_content_of_the_dump(
    original: Billing, dump: str, server: Server
) -> None:
    last = ask(original.url, "SELECT pg_walfile_name(pg_switch_wal())")
    wait_until((server.home / "backups/wal" / last).exists)
    server.shell(RECOVER)
    shutil.copy(server.home / "password", server.home / "recovered/password")
    with embedded.postgres(server.home / "recovered", durable=False) as url:  # as `pg_ctl start` of the page
        wait_until(lambda: not ask(url, "SELECT pg_is_in_recovery()"))
        recovered = urlsplit(url)._replace(path="/billing").geturl()
        assert ask(recovered, CONTENT) == ask(server.database(dump), CONTENT)
        assert ask(original.url, CONTENT) != ask(server.database(dump), CONTENT)
