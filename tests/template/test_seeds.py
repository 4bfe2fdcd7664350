"""The tests that come with a seed check each promise of the seed: a mistake of a team in the seed's code makes a test fail."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from chassis.dev import embedded

from tests.support.commands import service_environment
from tests.support.services import Render

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("seeds")]

AGGREGATES = "Invoice: {audit: caller, number: string(40), customer_id: uuid, total: money, due_on: date?, note: text?}"
ANSWERS = {
    "service_name": "billing",
    "aggregates": AGGREGATES,
    "messaging_style": "events-and-queues",
    "broker": "nats",
    "auth": "oidc",
}
TEST_LIMIT_SECONDS = 120


@dataclass(frozen=True)
class Mutation:
    """An edit of a seed below src/billing, and the test of the service that has to fail because of the edit."""

    path: str
    old: str
    new: str
    test: str


MUTATIONS = {
    "an issued invoice says another version": Mutation(
        "domain/invoices.py",
        "version=self.version + 1,",
        "version=self.version,",
        "tests/domain/test_invoices.py",
    ),
    "a change keeps the old time": Mutation(
        "domain/invoices.py",
        "            setattr(self, name, value)\n        self.updated_at = at\n",
        "            setattr(self, name, value)\n",
        "tests/domain/test_invoices.py",
    ),
    "an issued invoice is no conflict": Mutation(
        "domain/invoices.py",
        "class InvoiceAlreadyIssued(Conflict)",
        "class InvoiceAlreadyIssued(NotFound)",
        "tests/api/test_invoices.py::test_a_draft_is_issued_only_once",
    ),
    "a row is loaded without a lock": Mutation(
        "persistence/invoices.py",
        ".with_for_update()",
        "",
        "tests/usecases/test_invoices.py::test_of_two_changes_at_once_the_second_is_refused",
    ),
    "a change is written to every row": Mutation(
        "persistence/invoices.py",
        "sa.update(invoices).where(_BY_ID)",
        "sa.update(invoices).where(_BY_ID | (invoices.c.version > 0))",
        "tests/api/test_invoices.py::test_a_change_leaves_other_invoices_alone",
    ),
    "every row is deleted": Mutation(
        "persistence/invoices.py",
        "sa.delete(invoices).where(_BY_ID)",
        "sa.delete(invoices).where(_BY_ID | (invoices.c.version > 0))",
        "tests/api/test_invoices.py::test_a_change_leaves_other_invoices_alone",
    ),
    "the expected version is not compared": Mutation(
        "persistence/invoices.py",
        'if expected_version not in (None, row["version"]):',
        "if False:",
        "tests/usecases/test_invoices.py::test_a_change_of_an_outdated_copy_is_refused",
    ),
    "a column is not written": Mutation(
        "persistence/invoices.py",
        'not in {"id", "created_at", "created_by"}',
        'not in {"id", "created_at", "created_by", "updated_at"}',
        "tests/usecases/test_invoices.py::test_a_change_is_a_new_version",
    ),
    "the database takes any version": Mutation(
        "migrations/versions/0001_create_invoices.py",
        '        sa.CheckConstraint("version >= 1", name="version_positive"),\n',
        "",
        "tests/usecases/test_invoices.py::test_the_database_refuses_invalid_values",
    ),
    "a list has no limit": Mutation(
        "persistence/invoice_queries.py",
        '.limit(sa.bindparam("limit"))',
        "",
        "tests/usecases/test_invoices.py::test_a_list_is_no_longer_than_its_limit",
    ),
    "the next page begins with the last item": Mutation(
        "persistence/invoice_queries.py",
        '_id < sa.bindparam("after")',
        '_id <= sa.bindparam("after")',
        "tests/api/test_invoices.py::test_pages_hold_each_invoice_once_newest_first",
    ),
    "an issued invoice is not saved": Mutation(
        "usecases/invoices.py",
        "    await uow.publish(invoice.issue(at=now))\n    await repository.save(invoice)\n",
        "    await uow.publish(invoice.issue(at=now))\n",
        "tests/usecases/test_invoices.py::test_a_draft_is_issued_only_once",
    ),
    "nobody hears of an issued invoice": Mutation(
        "usecases/invoices.py",
        "await uow.publish(invoice.issue(at=now))",
        "invoice.issue(at=now)",
        "tests/messaging/test_invoices.py::test_listeners_receive_each_issued_invoice_once_with_all_they_need",
    ),
    "nobody is reminded": Mutation(
        "usecases/invoice_reminders.py",
        "    await uow.enqueue(command, after=REMIND_AFTER)\n",
        "",
        "tests/usecases/test_invoice_reminders.py",
    ),
    "an outdated copy is issued": Mutation(
        "api/invoices.py",
        "usecases.IssueInvoice(invoice_id=invoice_id, expected_version=expected_version)",
        "usecases.IssueInvoice(invoice_id=invoice_id, expected_version=None)",
        "tests/api/test_invoices.py::test_a_draft_is_issued_only_once",
    ),
    "an answer does not describe its invoice": Mutation(
        "api/invoices.py",
        ", route_class=ResourceRoute",
        "",
        "tests/api/test_invoices.py::test_a_new_invoice_is_a_draft_that_can_be_read_back",
    ),
    "a page is announced that is empty": Mutation(
        "api/invoices.py",
        "len(found) > cursor.limit",
        "len(found) >= cursor.limit",
        "tests/api/test_invoices.py::test_pages_hold_each_invoice_once_newest_first",
    ),
    "a change has a time of long ago": Mutation(
        "api/invoices.py",
        "usecases.change_invoice(command, uow, now=utc_now())",
        "usecases.change_invoice(command, uow, now=utc_now().replace(year=2001))",
        "tests/api/test_invoices.py::test_a_change_has_the_time_of_its_request",
    ),
    "a new invoice names nobody": Mutation(
        "persistence/invoices.py",
        "        invoice.created_by = invoice.updated_by = self._subject\n",
        "",
        "tests/api/test_invoices.py::test_invoices_name_the_callers_who_created_and_changed_them",
    ),
    "a change names the caller of the change before": Mutation(
        "persistence/invoices.py",
        "        invoice.updated_by = self._subject\n",
        "",
        "tests/usecases/test_invoices.py::test_the_subjects_behind_the_first_and_the_latest_change_are_stored",
    ),
    "an event goes by another key": Mutation(
        "messaging/invoices.py",
        'key="invoice_id"',
        'key="customer_id"',
        "tests/messaging/test_invoices.py::test_listeners_receive_each_issued_invoice_once_with_all_they_need",
    ),
}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with embedded.temporary_postgres() as url:
        yield url


@pytest.fixture(scope="module")
def service(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service to break. This repository's environment runs its tests, so the service need not be installed."""
    return Path(shutil.copytree(render(**ANSWERS), tmp_path_factory.mktemp("seeds") / "billing"))


RUNS = """
import gc, importlib, os, signal, sys

import pytest

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
pytest.main(["--markers"])
import alembic.command, httpx2, billing.main

ours = [name for name in sys.modules if name.partition(".")[0] in ("billing", "chassis")]
for name in ours:
    del sys.modules[name]
for name in ours:
    if name.startswith("chassis.") and name != "chassis.testing":
        importlib.import_module(name)
gc.freeze()
sys.dont_write_bytecode = True  # Python compares size and whole seconds of a source, which two edits may share
for line in sys.stdin:
    output, limit, *arguments = line.rstrip("\\n").split("\\t")
    if not (child := os.fork()):
        signal.alarm(int(limit))
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        status = pytest.main(arguments)
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
"""
"""A program that runs pytest for each line that it reads, in a fork of its own. All packages and the chassis are imported
before, because the imports take as long as everything else. The service is not, because each run has an edit of its own."""


class Runs(NamedTuple):
    """The process that runs the service's tests, and the file for the output of each run."""

    process: subprocess.Popen[str]
    output: Path

    def run(self, *tests: str) -> tuple[int, str]:
        """Run tests, and return exit status and output."""
        assert self.process.stdin
        assert self.process.stdout
        limit = str(TEST_LIMIT_SECONDS)
        quiet = ("-p", "no:cacheprovider", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
        arguments = [str(self.output), limit, "--exitfirst", *quiet, *tests]
        self.process.stdin.write("\t".join(arguments) + "\n")
        self.process.stdin.flush()
        status = self.process.stdout.readline()
        assert status, "the process that runs tests has ended"
        return int(status), self.output.read_text()


@pytest.fixture(scope="module")
def runs(service: Path, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    environment = service_environment(DATABASE_URL=database, PYTHONPATH=f"src{os.pathsep}{service / 'chassis/src'}")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", RUNS]
    with subprocess.Popen(command, cwd=service, env=environment, text=True, **pipes) as process:
        yield Runs(process, tmp_path_factory.mktemp("runs") / "output")
        process.stdin.close()


def test_all_tests_pass_before_a_seed_is_broken(runs: Runs) -> None:
    status, output = runs.run()
    assert status == 0, output


@pytest.mark.parametrize("mutation", [pytest.param(mutation, id=name) for name, mutation in MUTATIONS.items()])
def test_a_test_of_the_service_fails_if(service: Path, runs: Runs, mutation: Mutation) -> None:
    seed = service / "src/billing" / mutation.path
    text = seed.read_text()
    assert text.count(mutation.old) == 1, f"{mutation.path} holds {mutation.old!r} {text.count(mutation.old)} times"
    try:
        seed.write_text(text.replace(mutation.old, mutation.new))
        status, output = runs.run(mutation.test)
    finally:
        seed.write_text(text)
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert "1 failed" in output


def test_a_seed_of_every_layer_is_broken() -> None:
    layers = {mutation.path.partition("/")[0] for mutation in MUTATIONS.values()}
    assert layers == {"domain", "persistence", "usecases", "api", "messaging", "migrations"}
