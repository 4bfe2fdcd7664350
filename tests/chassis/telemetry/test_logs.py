"""Log lines on stdout: one format for all, ids from the context, and no values from an exception."""

import json
import logging
import re
import subprocess
import sys
from typing import Any

import asyncpg
import pytest
from chassis.telemetry.logs import describe_exception

from tests.chassis.processes import environment
from tests.support.paths import ROOT

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

PROGRAM = f"""
import logging, sys
import structlog
from chassis.telemetry import logs
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

logs.configure(format=sys.argv[1], level=sys.argv[2], service="tiny")
log = structlog.get_logger()
log.debug("detail_seen")
log.info("thing_made", number=1, text='é "quoted"\\n second line')
logging.getLogger("some.library").warning("careful: %s", "hot")
logging.getLogger("httpx2").info("HTTP Request: GET http://other/?email=alice@example.com")
logs.request_id.set("request-7")
with trace.use_span(NonRecordingSpan(SpanContext(0x{TRACE_ID}, 0x{SPAN_ID}, is_remote=True))):
    log.info("traced_done")
    logging.getLogger("some.library").error("also traced")
try:
    secret = "in-a-local-variable"
    raise ValueError("first line\\nDETAIL: second-line")
except ValueError:
    log.exception("thing_failed")
    logging.getLogger("some.library").exception("it failed")
"""


def run(format: str, level: str) -> str:
    """Run a process with that configuration, and return its stdout."""
    command = [sys.executable, "-c", PROGRAM, format, level]
    result = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    return result.stdout


@pytest.fixture(scope="module")
def lines() -> list[dict]:
    return [json.loads(line) for line in run("json", "info").splitlines()]


def of(lines: list[dict], event: str) -> dict:
    (found,) = [line for line in lines if line["event"] == event]
    return found


def test_every_line_is_json_of_one_shape_from_any_logger(lines: list[dict]) -> None:
    for line in lines:
        assert line["service"] == "tiny"
        assert line["level"] in {"info", "warning", "error"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
    assert of(lines, "careful: hot")["level"] == "warning"


def test_facts_are_keywords_and_stay_on_one_line(lines: list[dict]) -> None:
    made = of(lines, "thing_made")

    assert (made["number"], made["text"]) == (1, 'é "quoted"\n second line')


@pytest.mark.parametrize("event", ["traced_done", "also traced"])
def test_a_line_names_its_request_and_its_trace(lines: list[dict], event: str) -> None:
    line = of(lines, event)

    assert (line["request_id"], line["trace_id"], line["span_id"]) == ("request-7", TRACE_ID, SPAN_ID)
    assert "trace_id" not in of(lines, "thing_made")


@pytest.mark.parametrize("event", ["thing_failed", "it failed"])
def test_an_exception_has_its_stack_and_not_its_values(lines: list[dict], event: str) -> None:
    exception = of(lines, event)["exception"]

    assert (exception["type"], exception["message"]) == ("ValueError", "first line")
    assert 'File "<string>"' in exception["stack"]
    assert exception["stack"].endswith("ValueError: first line")
    assert "second-line" not in json.dumps(lines)
    assert "in-a-local-variable" not in json.dumps(lines)


def test_the_addresses_that_clients_call_are_not_logged(lines: list[dict]) -> None:
    assert "alice" not in json.dumps(lines)


def test_the_level_holds_for_our_events_and_for_libraries() -> None:
    assert [json.loads(line)["level"] for line in run("json", "error").splitlines()] == ["error"] * 3


def test_the_console_format_is_for_people() -> None:
    output = run("console", "info")

    assert not output.startswith("{")
    assert re.search(r"info +\] thing_made +.*number=1", output)
    assert re.search(r"warning +\] careful: hot", output)
    assert "Traceback (most recent call last)" in output
    assert "in-a-local-variable" not in output


def test_the_console_format_escapes_the_characters_that_a_terminal_obeys() -> None:
    program = r"""
import logging
import structlog
from chassis.telemetry import logs

logs.configure(format="console", level="info", service="tiny")
log = structlog.get_logger()
log.info("message_handled", message_id="\x1b]0;owned\x07", key="x\u202ey", name="k\nfake line", listed=["\x1b[2J"])
logging.getLogger("some.library").warning("of \x1b[2J %s", "\x9b")
try:
    raise ValueError("so \x1b[2J")
except ValueError:
    log.exception("thing_failed")
"""
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    lines = found.stdout.splitlines()
    assert all(line.isprintable() for line in lines)
    for fact in (r"message_id=\u001b]0;owned\u0007", r"key=x\u202ey", "fake line"):
        assert fact in lines[0]
    assert r"of \u001b[2J \u009b" in lines[1]
    assert lines[-1] == r"ValueError: so \u001b[2J"


def chained() -> Exception:
    try:
        try:
            raise KeyError("the cause")
        except KeyError as cause:
            raise RuntimeError("the failure") from cause
    except RuntimeError as error:
        return error


def test_a_stack_begins_with_the_cause() -> None:
    stack = describe_exception(chained())["stack"]

    assert stack.index("KeyError: 'the cause'") < stack.index("RuntimeError: the failure")


def test_a_group_shows_the_stack_of_each_part() -> None:
    described = describe_exception(ExceptionGroup("both", [chained(), ValueError("the other")]))

    assert described["type"] == "ExceptionGroup"
    assert "RuntimeError: the failure" in described["stack"]
    assert "ValueError: the other" in described["stack"]


async def test_a_refused_row_does_not_get_into_the_logs(connection: asyncpg.Connection) -> None:
    insert = "INSERT INTO tiny.things (id, name, email) VALUES (gen_random_uuid(), $1, 'alice@example.com')"
    await connection.execute("BEGIN")
    await connection.execute(insert, "one")
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await connection.execute(insert, "two")
    await connection.execute("ROLLBACK")
    assert "alice@example.com" in str(refused.value)  # otherwise this test would prove nothing

    described = describe_exception(refused.value)

    assert "alice" not in json.dumps(described)
    assert described["message"] == 'duplicate key value violates unique constraint "uq_things_email"'


@pytest.mark.parametrize(
    ("query", "argument"),
    [("SELECT $1::int", "alice@example.com"), ("SELECT ($1::text)::int", "alice@example.com")],
)
async def test_an_argument_that_does_not_fit_does_not_get_into_the_logs(
    connection: asyncpg.Connection, query: str, argument: str
) -> None:
    with pytest.raises((asyncpg.DataError, asyncpg.InterfaceError)) as refused:
        await connection.execute(query, argument)
    assert argument in str(refused.value)

    described = describe_exception(refused.value)

    assert "alice" not in json.dumps(described)
    assert described["message"].startswith("invalid input ")


def test_logging_has_one_handler_after_any_number_of_configurations(make_app) -> None:
    make_app()
    make_app()

    assert [type(each).__module__ for each in logging.getLogger().handlers].count("chassis.telemetry.logs") == 1


HOSTILE = """
import asyncio, enum, logging, sys, uuid
import structlog
from chassis.telemetry import logs

logs.configure(format=sys.argv[1], level="info", service="tiny")
log = structlog.get_logger()


class Colour(enum.Enum):
    RED = 1


class Silent:
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class Angry(Exception):
    def __str__(self):
        raise RuntimeError("no message")


loop = [1]
loop.append(loop)
circle = {"name": "circle"}
circle["self"] = circle
deep = []
for _ in range(5000):
    deep = [deep]
facts = {
    "uuid_key": {uuid.UUID(int=7): 1},
    "enum_key": {Colour.RED: 1},
    "tuple_key": {(1, 2): 1},
    "none_key": {None: 1, 1: 2, True: 3},
    "silent_key": {Silent(): 1},
    "silent": Silent(),
    "silents": [Silent(), {"one": Silent()}],
    "angry": Angry(),
    "loop": loop,
    "circle": circle,
    "deep": deep,
    "set": {1},
    "bytes": b"\\xff",
    "nan": float("nan"),
    "infinite": {"value": float("inf")},
    "huge": 10**5000,
    "half": "\\ud800",
    "accent": "\\u00e9",
    "nul": "\\0",
    "type": Silent,
}
for name, fact in facts.items():
    log.info(name, fact=fact, after=1)
    logging.getLogger("a.library").warning("said " + name, extra={"fact": fact})
library = logging.getLogger("a.library")
library.warning("%d stones", "a secret")
library.warning("of no text: %s", Silent())
library.warning("too deep: %s", deep)
library.warning(deep)
log.info("too few %d", "arguments")
log.info("two_events", **{"event": "the other"})
log.info(Silent())
for raised in (Angry(), "no exception", (1,)):
    log.error("raised", exc_info=raised)
try:
    raise Angry
except Angry:
    log.exception("angry_caught")
asyncio.run(log.ainfo("awaited", fact=circle))
asyncio.run(log.ainfo("awaited %d", "x"))
sys.stdout.flush()
sys.stdout.close()
log.info("stdout_closed")
sys.stderr.write("went on")
"""


def go_on(format: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-u", "-c", HOSTILE, format]  # unbuffered, as in the image
    return subprocess.run(
        command, env=environment(PYTHONIOENCODING="ascii"), cwd=ROOT, text=True, timeout=60, **options
    )


def test_facts_of_any_kind_are_logged_and_none_fails_the_caller() -> None:
    result = go_on("json", capture_output=True)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert (result.stderr, result.returncode) == ("went on", 0)
    lines = [json.loads(line, parse_constant=refuse) for line in result.stdout.splitlines()]
    facts = {line["event"]: line.get("fact") for line in lines if line.get("after") == 1}
    assert facts["uuid_key"] == {"00000000-0000-0000-0000-000000000007": 1}
    assert facts["enum_key"] == {"Colour.RED": 1}
    assert facts["tuple_key"] == {"(1, 2)": 1}
    assert facts["silent"] == "<Silent: RuntimeError>"
    assert facts["silents"] == ["<Silent: RuntimeError>", {"one": "<Silent: RuntimeError>"}]
    assert facts["loop"] == [1, "…"]
    assert facts["circle"] == {"name": "circle", "self": "…"}
    assert (facts["nan"], facts["infinite"], facts["accent"]) == ("nan", {"value": "inf"}, "é")
    assert len(facts) == 20
    lost = [line["lost"] for line in lines if line["event"] == "log_line_lost"]
    assert lost[:3] == ["%d stones", "of no text: %s", "too deep: %s"]
    assert lost[4:6] == ["too few %d", "two_events"]
    assert "a secret" not in result.stdout


def test_the_console_format_takes_facts_of_any_kind_too() -> None:
    result = go_on("console", capture_output=True)

    assert (result.stderr, result.returncode) == ("went on", 0)
    for name in ("uuid_key", "silent", "circle", "deep", "huge", "half", "accent", "angry_caught"):
        assert name in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("format", ["json", "console"])
def test_a_full_disk_behind_stdout_fails_no_caller(format: str) -> None:
    with open("/dev/full", "w") as full:
        result = go_on(format, stdout=full, stderr=subprocess.PIPE)

    assert result.stderr.endswith("went on")
