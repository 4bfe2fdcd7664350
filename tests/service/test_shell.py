"""`make shell`: a prompt with `await`, and scripts, on the database of `make dev`."""

import re
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pexpect
import pytest

from tests.support.commands import service_environment
from tests.support.services import Birth

pytestmark = pytest.mark.slow

START_SECONDS = 60


@contextmanager
def make_dev(service: Path, *arguments: str) -> Generator[tuple[pexpect.spawn, str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = service_environment(HTTP_PORT=str(port))
    terminal = pexpect.spawn(
        "make", ["dev", *arguments], cwd=str(service), env=environment, timeout=START_SECONDS, encoding="utf-8"
    )
    try:
        yield terminal, f"http://127.0.0.1:{port}"
    finally:
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        terminal.close()


def test_the_shell_runs_use_cases_in_the_database_of_make_dev(birth: Birth) -> None:
    service = birth(service_name="billing", messaging_style="events", chassis_parts="[shell]", auth="none")
    with make_dev(service) as (terminal, url):
        terminal.expect("Try it:")
        shell = pexpect.spawn(
            "make", ["shell"], cwd=str(service), env=service_environment(), timeout=START_SECONDS, encoding="utf-8"
        )
        shell.expect(r"billing on 127\.0\.0\.1:\d+/billing, with .*usecases, service, settings, database, unit_of_work")
        shell.expect(">>> ")
        for statement in (
            "create = usecases.invoices.CreateInvoice(",
            "    invoice_id=(id := new_id()), number='A-1', customer_id=new_id(),",
            "    total=domain.invoices.Money(amount=100, currency='EUR'), due_on=None, note=None)",
            "async with unit_of_work() as uow:",
            "    created = await usecases.invoices.create_invoice(create, uow, now=utc_now())",
            "",
            "(await database.fetchrow('SELECT number FROM billing.invoices WHERE id = $1', id))['number'] + '!'",
        ):
            shell.sendline(statement)
        shell.expect("'A-1!'")
        shell.sendline("await asyncio.sleep(60)")
        shell.expect("NameError: name 'asyncio' is not defined")
        shell.sendline("import asyncio; await asyncio.sleep(60)")
        shell.expect(re.escape("sleep(60)"))
        shell.sendintr()
        shell.expect("KeyboardInterrupt")
        shell.sendline("40 + 2")  # Ctrl-C ended the statement, and not the prompt
        shell.expect("42")
        shell.sendeof()
        shell.expect(pexpect.EOF)
        shell.close()
        assert httpx2.get(f"{url}/v1/invoices").json()["items"][0]["number"] == "A-1"
        script = "for row in await database.fetch('SELECT 1 AS one'):\n    print(row['one'])\n"
        done = run_script(service, script)
        assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
        failed = run_script(service, "await usecases.missing()")
        assert failed.returncode == 2
        assert "AttributeError: module 'billing.usecases' has no attribute 'missing'" in failed.stderr
    assert "the servers of `make dev` do not run" in run_script(service, "1").stderr


def run_script(service: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--silent", "shell"],
        input=script,
        cwd=service,
        env=service_environment(),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
