"""How the service's code reaches other code, its database and other services."""

import ast
import logging
import re
from collections.abc import Iterator

from fleet.conventions import Convention, Problem
from fleet.judges import import_linter
from fleet.service import source
from fleet.service.service import Service
from fleet.service.source import Module

CODE = "src/*.py"

# --- layers -----------------------------------------------------------------------------------------------------------


class Layers(Convention):
    """Business rules that import neither web framework nor database outlive both, and are tested without either."""

    id = "code-layers"
    remedy = (
        "domain <- persistence <- usecases <- api, messaging <- main, and no aggregate imports another one in a service with "
        "independent_aggregates: move the code, not the rule"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        if import_linter.CONTRACTS not in service.tree:
            yield Problem(import_linter.CONTRACTS, "the file with the rules for imports is missing")
            return
        # This raises an error that names the file which cannot be parsed: import-linter would name a temporary file.
        source.modules(service, CODE)
        for one in import_linter.find_violations(service):
            file = f"{'chassis/' if one.importer.startswith('chassis.') else ''}src/{one.importer.replace('.', '/')}"
            path = f"{file}.py" if f"{file}.py" in service.tree else f"{file}/__init__.py"
            yield Problem(path, f"{one.importer} may not import {one.imported}", one.line)

    def prepare(self, services: list[Service]) -> None:
        import_linter.prepare(services)


# --- the database -----------------------------------------------------------------------------------------------------

DRIVERS = ("aiopg", "pg8000", "psycopg", "psycopg2", "psycopg_pool", "postgresql", "sqlmodel")
CONNECTIONS = re.compile(
    r"asyncpg\.(connect|create_pool|connection\.connect|pool\.create_pool)"
    r"|sqlalchemy(\.\w+)*\.(create_engine|create_async_engine|engine_from_config|async_engine_from_config)"
)
URL = re.compile(r"postgres(ql)?(\+\w+)?://")
FOREIGN = re.compile(
    r"\b(dblink\w*\s*\(|postgres_fdw|CREATE\s+FOREIGN\s+TABLE|CREATE\s+SERVER|IMPORT\s+FOREIGN\s+SCHEMA)", re.IGNORECASE
)
STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE|CREATE|ALTER|DROP|TRUNCATE)\b", re.IGNORECASE)
CATALOGUES = {"information_schema", "pg_catalog"}
OTHER_URL = re.compile(r"(.*_)?(database|postgres|postgresql|pg|db)(_.*)?_(url|uri|dsn)")


class OwnDatabase(Convention):
    """A service cannot change tables that another service reads, and then neither can be deployed alone."""

    id = "code-own-database"
    remedy = "ask the service that owns the data over HTTP, or keep a copy of the data from its events"

    def check(self, service: Service) -> Iterator[Problem]:
        own = {service.package, *CATALOGUES}
        for module in source.modules(service, CODE):
            for what, line in (*_connections(module), *_foreign(module, own), *_settings(module)):
                yield Problem(module.path, what, line)


def _connections(module: Module) -> Iterator[tuple[str, int]]:
    for name, line in module.imports:
        if name.partition(".")[0] in DRIVERS:
            yield f"{name} opens connections outside the chassis' pool", line
    for name, call in module.calls:
        if CONNECTIONS.fullmatch(name):
            yield f"{name}() opens connections outside the chassis' pool", call.lineno
    for text, line in module.strings:
        if URL.match(text):
            yield "the code contains the address of a database", line


def _foreign(module: Module, own: set[str]) -> Iterator[tuple[str, int]]:
    for text, line in module.strings:
        if FOREIGN.search(text):
            yield "the statement reaches into another database", line
        elif STATEMENT.match(text):
            yield from ((_describe_schema(name), line) for name in sorted(_schemas_of_sql(text) - own))
    for name, call in module.calls:
        for schema in _schemas_of_call(name, call):
            if schema not in own:
                yield _describe_schema(schema), call.lineno


def _schemas_of_sql(sql: str) -> set[str]:
    """Return the schemas of the tables in a statement; none if the text is only a part of a statement."""
    import sqlglot  # imported here, because few services need it: most write SQL with SQLAlchemy

    # sqlglot warns about every statement that it cannot parse fully.
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    try:
        parsed = sqlglot.parse(sql, dialect="postgres", error_level=sqlglot.ErrorLevel.RAISE)
    except sqlglot.errors.SqlglotError:
        return set()
    tables = (table for statement in parsed if statement for table in statement.find_all(sqlglot.exp.Table))
    return {table.db for table in tables if table.db}


def _describe_schema(name: str) -> str:
    return f"the schema {name} is not this service's"


def _schemas_of_call(name: str, call: ast.Call) -> Iterator[str]:
    """Yield the schemas that a call of SQLAlchemy, Alembic or the chassis names."""
    if name.startswith(("sqlalchemy.", "alembic.")):
        keywords = ("schema", "source_schema", "referent_schema")
        yield from filter(None, (_text(keyword.value) for keyword in call.keywords if keyword.arg in keywords))
    if name.endswith(".metadata_for") and call.args:
        yield _text(call.args[0])
    if name.endswith(".ForeignKey") and call.args and _text(call.args[0]).count(".") == 2:
        yield _text(call.args[0]).partition(".")[0]


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _settings(module: Module) -> Iterator[tuple[str, int]]:
    """Find a second database in the settings."""
    for node in module.of(ast.ClassDef):
        if any(module.named(base).endswith("Settings") for base in node.bases):
            for field in node.body:
                for name in source.assigned(field):
                    if OTHER_URL.fullmatch(name) and name != "database_url":
                        yield f"the setting {name} names another database than the service's own", field.lineno


# --- other services ---------------------------------------------------------------------------------------------------

HTTP_LIBRARIES = ("aiohttp", "http.client", "httplib2", "niquests", "pycurl", "requests", "urllib.request", "urllib3")
HTTPX = re.compile(r"httpx2?\.(Async)?Client|httpx2?\.(get|post|put|patch|delete|head|options|query|request|stream)")
BROKER_LIBRARIES = ("aio_pika", "aiokafka", "aiormq", "amqp", "confluent_kafka", "kafka", "nats", "pika", "stomp")
TASK_QUEUES = ("celery", "dramatiq", "faststream", "kombu")


class OutgoingCalls(Convention):
    """A call that bypasses the chassis has no time limit and no span: the call may hang, and the trace ends there."""

    id = "code-outgoing-calls"
    remedy = "keep one settings.client_for(name), or chassis.client.service_client(base_url), for each service that is called"

    def check(self, service: Service) -> Iterator[Problem]:
        for module in source.modules(service, CODE):
            yield from _find_imports(module, HTTP_LIBRARIES, "is another HTTP client than the chassis'")
            older = [
                *_find_imports(
                    module, ("httpx",), "has other errors and transports than the chassis' client: write httpx2"
                )
            ]
            # An import of httpx works without httpx in the lock file: the chassis gives httpx2 under that name.
            if older and '\nname = "httpx"\n' in service.text("uv.lock"):
                yield from older
            for name, call in module.calls:
                if HTTPX.fullmatch(name):
                    yield Problem(module.path, f"{name}() is another HTTP client than the chassis'", call.lineno)


class OutgoingMessages(Convention):
    """A message that bypasses the outbox is lost when the process ends, or announces a change that was rolled back."""

    id = "code-outgoing-messages"
    remedy = "`await uow.publish(…)` an event or `await uow.enqueue(…)` a job, with a line in OUTGOING of messaging/"

    def check(self, service: Service) -> Iterator[Problem]:
        for module in source.modules(service, CODE):
            yield from _find_imports(module, (*BROKER_LIBRARIES, *TASK_QUEUES), "bypasses outbox and inbox")


def _find_imports(module: Module, libraries: tuple[str, ...], what: str) -> Iterator[Problem]:
    for name, line in module.imports:
        for library in libraries:
            if f"{name}.".startswith(f"{library}."):
                yield Problem(module.path, f"{library} {what}", line)


# --- logs -------------------------------------------------------------------------------------------------------------

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
LOGGERS = {"structlog.get_logger", "structlog.stdlib.get_logger", "logging.getLogger"}
PRINTS = re.compile(r"print|pprint\.pprint|sys\.(stdout|stderr)\.write|rich\.print")
EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class Logs(Convention):
    """Alerts and searches look for a fixed event, and a printed line has no trace id."""

    id = "code-logs"
    remedy = 'structlog.get_logger().info("invoice_issued", invoice_id=…): a fixed noun_verbed event, facts as keywords'

    def check(self, service: Service) -> Iterator[Problem]:
        for module in source.modules(service, CODE):
            loggers = _loggers(module)
            for name, call in module.calls:
                receiver, _, level = name.rpartition(".")
                if PRINTS.fullmatch(name):
                    yield Problem(module.path, f"{name}() does not write a line of the log", call.lineno)
                elif receiver in loggers and level in LEVELS:
                    event = _text(call.args[0]) if call.args else ""
                    if not EVENT.fullmatch(event):
                        yield Problem(module.path, "the event of this line is not a fixed word_like_this", call.lineno)


def _loggers(module: Module) -> set[str]:
    return {
        name
        for node in module.of(ast.Assign)
        if isinstance(node.value, ast.Call)
        if module.named(node.value.func) in LOGGERS
        for name in source.assigned(node)
    }
