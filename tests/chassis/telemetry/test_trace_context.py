"""Trace context by the W3C (https://www.w3.org/TR/trace-context-2): from a request, through a service, to another."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable

import httpx2
import pytest
from chassis.client import service_client
from chassis.telemetry import trace_context
from fastapi import FastAPI
from opentelemetry.trace import get_current_span

TRACE, SPAN = "12345678901234567890123456789012", "1234567890123456"
PARENT = f"00-{TRACE}-{SPAN}-01"
KEY_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE_CHARACTERS = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")

Onward = Callable[..., Awaitable[httpx2.Headers]]


@pytest.fixture
async def onward(make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Onward]:
    """`onward(("traceparent", …), …)`: the headers that another service gets while our service handles such a request."""
    app = make_app()
    monkeypatch.setattr("chassis.client.trace.get_tracer", lambda _: app.state.telemetry.tracer)
    arrived: list[httpx2.Headers] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        arrived.append(request.headers)
        return httpx2.Response(204)

    async with service_client("http://other", transport=httpx2.MockTransport(answer)) as other:

        @app.get("/call")
        async def call(times: int = 1) -> None:
            for _ in range(times):
                await other.get("/there", headers={"tracestate": "of=another-trace"})

        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:

            async def onward(*headers: tuple[str, str], times: int = 1) -> httpx2.Headers:
                arrived.clear()
                await client.get("/call", params={"times": times}, headers=list(headers))
                assert len({each["traceparent"].split("-")[2] for each in arrived}) == times  # a span for each call
                (trace,) = {each["traceparent"].split("-")[1] for each in arrived}
                assert int(trace, 16)
                return arrived[-1]

            yield onward


def parts(headers: httpx2.Headers) -> list[str]:
    """Return version, trace, span and flags that were passed on."""
    (sent,) = headers.get_list("traceparent")
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", sent)
    return sent.split("-")


@pytest.mark.parametrize(
    "traceparent",
    [
        PARENT,
        f" {PARENT}",
        f"\t{PARENT}",
        f"{PARENT} \t",
        f"cc-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-brings",
    ],
)
@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TRACEPARENT"])
async def test_a_trace_of_the_caller_goes_on_with_a_span_of_ours(onward: Onward, name: str, traceparent: str) -> None:
    _, trace, span, _ = parts(await onward((name, traceparent), times=3))

    assert trace == TRACE
    assert span != SPAN


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("trace-parent", PARENT)],
        [("trace.parent", PARENT)],
        [("traceparent", "")],
        [("traceparent", PARENT), ("traceparent", PARENT)],
        [("traceparent", PARENT), ("traceparent", f"00-{TRACE}-{SPAN}-00")],
        [("traceparent", ""), ("traceparent", PARENT)],
        [("traceparent", f"cc-{TRACE}-{SPAN}-01-x"), ("traceparent", PARENT)],
        *(
            [("traceparent", malformed)]
            for malformed in (
                f"{PARENT}.",
                f"{PARENT}-what-the-future-brings",
                f"cc-{TRACE}-{SPAN}-01.what-the-future-brings",
                f"ff-{TRACE}-{SPAN}-01",
                f".0-{TRACE}-{SPAN}-01",
                f"0.-{TRACE}-{SPAN}-01",
                f"0-{TRACE}-{SPAN}-01",
                f"000-{TRACE}-{SPAN}-01",
                f"0000-{TRACE}-{SPAN}-01",
                f"00-{'0' * 32}-{SPAN}-01",
                f"00-.{TRACE[1:]}-{SPAN}-01",
                f"00-{TRACE[:-1]}.-{SPAN}-01",
                f"00-{TRACE}3-{SPAN}-01",
                f"00-{TRACE[:-1]}-{SPAN}-01",
                f"00-{TRACE}-{'0' * 16}-01",
                f"00-{TRACE}-.{SPAN[1:]}-01",
                f"00-{TRACE}-{SPAN[:-1]}.-01",
                f"00-{TRACE}-{SPAN}7-01",
                f"00-{TRACE}-{SPAN[:-1]}-01",
                f"00-{TRACE}-{SPAN}-.0",
                f"00-{TRACE}-{SPAN}-0.",
                f"00-{TRACE}-{SPAN}-001",
                f"00-{TRACE}-{SPAN}-1",
                f"00-{TRACE.replace('1', 'A')}-{SPAN}-01",
                f"{PARENT}\n",
            )
        ),
    ],
)
async def test_a_header_that_names_no_trace_begins_a_trace_and_drops_the_state(
    onward: Onward, headers: list[tuple[str, str]]
) -> None:
    sent = await onward(*headers, ("tracestate", "foo=1"), times=3)

    assert parts(sent)[1] not in (TRACE, TRACE.replace("1", "a"))
    assert "tracestate" not in sent


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
async def test_the_flags_of_the_caller_are_passed_on(onward: Onward, flags: str) -> None:
    assert int(parts(await onward(("traceparent", f"00-{TRACE}-{SPAN}-{flags}")))[3], 16) & 2 == int(flags, 16) & 2


def members(count: int, *, first: int = 1) -> str:
    return ",".join(f"bar{number:02}={number:02}" for number in range(first, first + count))


@pytest.mark.parametrize(
    ("headers", "passed_on"),
    [
        (["foo=1,bar=2"], "foo=1,bar=2"),
        (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
        (["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
        ([" foo=1"], "foo=1"),
        (["\t foo=1 \t"], "foo=1"),
        (["foo= 1"], "foo= 1"),
        (["foo=1,,bar=2"], "foo=1,bar=2"),
        # repeated, empty or both
        (["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3"),
        (["foo=1", ""], "foo=1"),
        (["", "foo=1"], "foo=1"),
        ([""], None),
        (["foo=1,foo=1"], "foo=1"),
        (["foo=1,foo=2"], "foo=1"),
        (["foo=1", "foo=2"], "foo=1"),
        # keys
        ([f"{KEY_CHARACTERS}@a-z0-9_-*/={VALUE_CHARACTERS}"], f"{KEY_CHARACTERS}@a-z0-9_-*/={VALUE_CHARACTERS}"),
        (["0=1"], "0=1"),
        (["foo@=1,bar=2"], "foo@=1,bar=2"),
        (["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
        (["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2"),
        (["@foo=1,bar=2"], None),
        (["foo =1"], None),
        (["FOO=1"], None),
        (["foo.bar=1"], None),
        # values
        (["foo=bar=baz"], None),
        (["foo=,bar=3"], None),
        (["foo=é"], None),
        (["foo"], None),
        # sizes
        (["foo=1", "z" * 256 + "=1"], "foo=1," + "z" * 256 + "=1"),
        (["foo=1", "z" * 257 + "=1"], None),
        (["foo=1", "t" * 241 + "@" + "v" * 14 + "=1"], "foo=1," + "t" * 241 + "@" + "v" * 14 + "=1"),
        (["foo=1", "t" * 242 + "@v=1"], "foo=1," + "t" * 242 + "@v=1"),
        (["foo=1", "t@" + "v" * 15 + "=1"], "foo=1,t@" + "v" * 15 + "=1"),
        (["foo=" + "v" * 256], "foo=" + "v" * 256),
        (["foo=" + "v" * 257], None),
        ([members(10), members(10, first=11), members(12, first=21)], members(32)),
        ([members(10), members(10, first=11), members(13, first=21)], None),
    ],
)
async def test_the_state_of_the_caller_is_passed_on_whole_or_not_at_all(
    onward: Onward, headers: list[str], passed_on: str | None
) -> None:
    encoded: list = [("tracestate", value.encode()) for value in headers]
    sent = await onward(("traceparent", PARENT), *encoded)

    assert parts(sent)[1] == TRACE
    assert sent.get("tracestate") == passed_on


@pytest.mark.parametrize("name", ["trace-state", "trace.state"])
async def test_a_header_of_another_name_is_no_state(onward: Onward, name: str) -> None:
    assert "tracestate" not in await onward(("traceparent", PARENT), (name, "foo=1"))


def test_the_state_of_a_message_is_read_by_the_same_rules() -> None:
    span = get_current_span(trace_context.extract({"traceparent": PARENT, "tracestate": "a@b@c=1,a=2,a=3"}))

    assert dict(span.get_span_context().trace_state) == {"a@b@c": "1", "a": "2"}
