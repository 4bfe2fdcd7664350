"""Each convention about code, broken in one way."""

from pathlib import Path

import pytest

from tests.fleet.conventions.mutations import Broken, Mutations, append, both, each_alone, edit, remove, violations

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]

QUERIES = "src/billing/persistence/invoice_queries.py"


def code(text: str, path: str = "src/billing/usecases/reports.py") -> Broken:
    """Write a new module, or append to a module."""
    return append(path, f"{text}\n")


MUTATIONS: Mutations = {
    "the domain imports the API": (
        "code-layers",
        code("import billing.api.invoices", "src/billing/domain/reports.py"),
        "billing.domain.reports may not import billing.api.invoices",
    ),
    "by a detour": (
        "code-layers",
        both(
            code("from billing import main", "src/billing/reports/__init__.py"),
            code("import billing.reports", "src/billing/persistence/reports.py"),
        ),
        "billing.persistence.reports may not import billing.reports",
    ),
    "the domain imports a framework": (
        "code-layers",
        code("from sqlalchemy import Table", "src/billing/domain/reports.py"),
        "billing.domain.reports may not import sqlalchemy",
    ),
    "no rules": ("code-layers", remove(".importlinter"), "the file with the rules for imports is missing"),
    "another database": (
        "code-own-database",
        edit(
            "src/billing/settings.py", '    """Add a field', '    reporting_database_url: str = ""\n    """Add a field'
        ),
        "the setting reporting_database_url names another database than the service's own",
    ),
    "another client": (
        "code-outgoing-calls",
        code("from httpx import AsyncClient\nCLIENT = AsyncClient()"),
        "httpx.AsyncClient() is another HTTP client than the chassis'",
    ),
    "two versions of a client": (
        "code-outgoing-calls",
        both(
            code("import httpx"),
            append(
                "uv.lock",
                '\n[[package]]\nname = "httpx"\nsource = { registry = "https://packages.example.com/simple" }\n',
            ),
        ),
        "httpx has other errors and transports than the chassis' client: write httpx2",
    ),
    "another message": (
        "code-outgoing-messages",
        code("from nats.aio.client import Client"),
        "nats bypasses outbox",
    ),
    "a print": ("code-logs", code('print("issued")'), "print() does not write a line of the log"),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


# Two texts that findings share, and LINES: each line of code with the text of its finding, empty for a valid line.
BESIDE = "opens connections outside the chassis' pool"
WRITTEN = "the code contains the address of a database"
LINES: dict[str, str] = {
    'asyncpg.connect("postgresql://ledger/x")': f"asyncpg.connect() {BESIDE}; {WRITTEN}",
    'create_async_engine(f"postgresql+asyncpg://{HOST}/x")': (
        f"sqlalchemy.ext.asyncio.create_async_engine() {BESIDE}; {WRITTEN}"
    ),
    "import psycopg.rows": f"psycopg.rows {BESIDE}",
    'A = "SELECT 1 FROM ledger.accounts a JOIN billing.invoices i ON i.id = a.id"': "the schema ledger is not this service's",
    'B = "SELECT extract(epoch FROM i.at) FROM billing.invoices i WHERE i.a IS DISTINCT FROM i.b"': "",
    'B = "SELECT 1 FROM information_schema.tables"': "",
    'C = "WITH latest AS (SELECT 1) SELECT * FROM latest, Ledger.x"': "the schema Ledger is not this service's",
    "D = \"select dblink('host=ledger', 'select 1')\"": "the statement reaches into another database",
    'E = "From here on we update the customer\'s ledger.entries by hand"': "",
    'F = "select the best of all.worlds"': "",
    'sa.Table("accounts", metadata, schema="ledger")': "the schema ledger is not this service's",
    'sa.Table("invoices", metadata, schema="billing")': "",
    'sa.ForeignKey("ledger.accounts.id")': "the schema ledger is not this service's",
    'sa.ForeignKey("invoices.id")': "",
    'metadata_for("ledger")': "the schema ledger is not this service's",
    "import requests": "requests is another HTTP client than the chassis'",
    "from urllib import request": "urllib.request is another HTTP client than the chassis'",
    "from urllib.parse import quote": "",
    "import aiohttp.web": "aiohttp is another HTTP client than the chassis'",
    'httpx.post("https://ledger/x")': "httpx.post() is another HTTP client than the chassis'",
    "httpx.Response(200)": "",
    'httpx2.query("https://ledger/x")': "httpx2.query() is another HTTP client than the chassis'",
    "httpx2.Response(200)": "",
    "service_client(URL)": "",
    "import aiokafka": "aiokafka bypasses outbox and inbox",
    "import aio_pika.abc": "aio_pika bypasses outbox and inbox",
    'logger.info("invoice_issued", number=1)': "",
    'logger.info(f"issued {number}")': "the event of this line is not a fixed word_like_this",
    'logger.warning("Issued it")': "the event of this line is not a fixed word_like_this",
    'log.error("it %s", 1)': "the event of this line is not a fixed word_like_this",
    'sys.stderr.write("issued")': "sys.stderr.write() does not write a line of the log",
    'self.print("issued")': "",
}


def test_each_line_is_judged_by_its_effect(service: Path) -> None:
    imports = [
        '"""Settles postgresql://ledger/x; a docstring is no connection."""',
        "import asyncpg, httpx, httpx2, logging, structlog, sys",
        "import sqlalchemy as sa",
        "from chassis.client import service_client",
        "from chassis.database import metadata_for",
        "from sqlalchemy.ext.asyncio import create_async_engine",
        "logger = structlog.get_logger()",
        "log = logging.getLogger(__name__)",
    ]
    code("\n".join([*imports, *LINES]))(service)
    found: dict[str, list[str]] = {line: [] for line in LINES}
    for one in violations(service, by_programs=True):
        assert one.id.startswith("code-"), one
        found[[*imports, *LINES][one.line - 1]].append(one.reason)
    assert {line: "; ".join(reasons) for line, reasons in found.items()} == LINES
