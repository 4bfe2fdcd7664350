"""The traces of a request: one span, one id, measurements, and a log line after a failure."""

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from uuid import UUID

import httpx2
import pytest
from chassis.settings import Settings
from chassis.telemetry.setup import Telemetry
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from tests.chassis.processes import Running, Start
from tests.chassis.serving import serving
from tests.chassis.sockets import listening

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
TRACEPARENT = (b"traceparent", SAMPLED["traceparent"].encode())
NOT_SAMPLED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"}


@dataclass
class Watched:
    """A client of the service, and the spans, metrics and logs of its requests."""

    client: httpx2.AsyncClient
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    async def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    async def server_span(self) -> ReadableSpan:
        (found,) = [span for span in await self.spans() if span.kind is SpanKind.SERVER]
        return found

    def points(self, name: str) -> list:
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        metrics = [metric for part in data.resource_metrics for scope in part.scope_metrics for metric in scope.metrics]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


@pytest.fixture
async def watched(make_app: Callable[..., FastAPI], database: object) -> AsyncGenerator[Watched]:
    """The service with telemetry in memory. `database` empties the table afterwards."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    telemetry = Telemetry(
        Resource({}),
        sampler=ParentBased(TraceIdRatioBased(1)),
        span_processors=[SimpleSpanProcessor(exporter)],
        metric_readers=[reader],
    )
    app = make_app(telemetry=telemetry)
    async with serving(app) as client:
        yield Watched(client, exporter, reader)


async def test_a_callers_trace_goes_on(watched: Watched) -> None:
    await watched.client.get("/v1/things", headers=SAMPLED | {"tracestate": "vendor=1"})

    span = await watched.server_span()

    assert format(span.context.trace_id, "032x") == TRACE_ID
    assert span.parent is not None
    assert format(span.parent.span_id, "016x") == SPAN_ID
    assert span.context.trace_state.get("vendor") == "1"


@pytest.mark.parametrize("traceparent", [None, "", "nonsense", f"00-{'0' * 32}-{SPAN_ID}-01", "é"])
async def test_without_a_trace_of_the_caller_one_begins(watched: Watched, traceparent: str | None) -> None:
    headers = [] if traceparent is None else [(b"traceparent", traceparent.encode())]
    await watched.client.get("/v1/things", headers=headers)

    span = await watched.server_span()

    assert span.parent is None
    assert span.context.trace_id != 0


@pytest.mark.parametrize("path", ["/v1/things", "/v1/failures/conflict", "/livez"])
async def test_head_is_answered_as_get_is(watched: Watched, path: str) -> None:
    get, head = [await watched.client.request(method, path, headers=[TRACEPARENT]) for method in ("GET", "HEAD")]

    assert (head.status_code, head.headers) == (get.status_code, get.headers)
    if path != "/livez":
        assert [
            span.attributes["http.request.method"] for span in await watched.spans() if span.kind is SpanKind.SERVER
        ] == ["GET", "HEAD"]


async def test_head_gets_no_body_that_the_next_answer_would_begin_with(make_app: Callable[..., FastAPI]) -> None:
    async with listening(make_app()) as client:
        head, get = await client.head("/v1/things"), await client.get("/v1/things")

    assert (head.status_code, head.content, get.status_code) == (200, b"", 200)
    assert int(head.headers["content-length"]) == len(get.content)


async def test_the_trace_the_problem_and_the_header_of_an_answer_have_the_same_id(watched: Watched) -> None:
    response = await watched.client.get("/v1/failures/conflict")

    trace_id = format((await watched.server_span()).context.trace_id, "032x")
    assert response.json()["trace_id"] == response.headers["x-request-id"] == trace_id


async def test_a_trace_that_the_caller_does_not_sample_is_not_recorded_and_keeps_its_id(watched: Watched) -> None:
    response = await watched.client.get("/v1/failures/conflict", headers=NOT_SAMPLED)

    assert await watched.spans() == []
    assert response.json()["trace_id"] == TRACE_ID


async def test_two_request_ids_count_as_no_request_id(watched: Watched) -> None:
    headers = [("X-Request-Id", "one"), ("X-Request-Id", "one")]
    response = await watched.client.get("/v1/things", headers=headers)

    (identity,) = response.headers.get_list("x-request-id")
    assert identity == format((await watched.server_span()).context.trace_id, "032x")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/v1/things", [("Content-Type", "application/json"), ("Content-Type", "text/plain")], 415),
        ("POST", "/v1/things", [("Content-Type", "text/plain"), ("Content-Type", "application/json")], 415),
        ("PATCH", f"/v1/things/{UUID(int=1)}", [("If-Match", '"3"'), ("If-Match", '"4"')], 422),
        ("PATCH", f"/v1/things/{UUID(int=1)}", [("If-Match", '"3"'), ("If-Match", "*")], 422),
    ],
)
async def test_a_header_that_is_sent_twice_is_a_list_whose_members_all_count(
    watched: Watched, method: str, path: str, headers: list[tuple[str, str]], status: int
) -> None:
    json_type = [] if method == "POST" else [("Content-Type", "application/json")]
    response = await watched.client.request(method, path, content=b"{}", headers=[*headers, *json_type])

    assert response.status_code == status


async def test_cookies_in_several_headers_are_all_read(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()

    @app.get("/cookies")
    async def cookies(request: Request) -> dict:
        return request.cookies

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:
        response = await client.get("/cookies", headers=[("Cookie", "a=1; b=2"), ("Cookie", "c=3")])

    assert response.json() == {"a": "1", "b": "2", "c": "3"}


@pytest.mark.parametrize(
    ("method", "path", "kept"),
    [
        ("GET", "/v1/things", "private, no-cache"),
        ("GET", "/openapi.json", "private, no-cache"),
        ("POST", "/v1/things", "no-store"),
        ("GET", "/v1/failures/conflict", "no-store"),
        ("GET", "/v1/failures/bug", "no-store"),
        ("GET", "/nowhere", "no-store"),
    ],
)
async def test_a_cache_keeps_no_answer_without_permission_of_the_route_and_no_failure_at_all(
    watched: Watched, method: str, path: str, kept: str
) -> None:
    response = await watched.client.request(method, path)

    assert response.headers.get_list("cache-control") == [kept]


@pytest.mark.parametrize("probe", ["/livez", "/readyz", "/startupz"])
async def test_nobody_keeps_the_answer_of_a_probe(watched: Watched, probe: str) -> None:
    assert (await watched.client.get(probe)).headers["cache-control"] == "no-store"


@pytest.fixture
async def tagged(make_app: Callable[..., FastAPI]) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a server whose answers at /tagged and /streamed have an ETag."""
    app = make_app()
    headers = {"ETag": '"3"', "Cache-Control": "max-age=60", "Content-Location": "/v3"}

    @app.get("/tagged")
    async def tagged() -> Response:
        return Response(b"the third", headers=headers)

    @app.get("/streamed")
    async def streamed() -> Response:
        async def content() -> AsyncGenerator[bytes]:
            for part in (b"the", b"third"):
                yield part

        return StreamingResponse(content(), headers=headers)

    @app.post("/tagged")
    async def change() -> Response:
        return Response(b"changed", headers=headers)

    async with listening(app) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/tagged", "/streamed"])
@pytest.mark.parametrize("tags", [['"3"'], ['W/"3"'], ['"2", "3"'], ['"2"', '"3"'], ['"2" ,W/"3"'], ["*"]])
async def test_a_copy_that_is_still_right_is_not_sent_again(
    tagged: httpx2.AsyncClient, method: str, path: str, tags: list[str]
) -> None:
    for _ in range(2):  # on one connection, whose next answer must not start with the omitted body
        response = await tagged.request(method, path, headers=[("If-None-Match", tag) for tag in tags])

        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == '"3"'
        assert response.headers["cache-control"] == "max-age=60"
        assert response.headers["content-location"] == "/v3"
        assert not {"content-length", "content-type", "transfer-encoding"} & set(response.headers)


@pytest.mark.parametrize(("method", "tag"), [("GET", '"4"'), ("GET", "3"), ("GET", ""), ("POST", '"3"'), ("POST", "*")])
async def test_a_copy_that_is_not_right_or_not_asked_for_is_answered_in_full(
    tagged: httpx2.AsyncClient, method: str, tag: str
) -> None:
    response = await tagged.request(method, "/tagged", headers={"If-None-Match": tag})

    assert (response.status_code, response.headers["etag"]) == (200, '"3"')
    assert response.content


async def test_no_copy_is_right_where_the_answer_has_no_tag(watched: Watched) -> None:
    assert (await watched.client.get("/v1/things", headers={"If-None-Match": "*"})).status_code == 200


def test_an_answer_does_not_name_the_server(logging_service: Running) -> None:
    for path in ("/v1/things", "/livez", "/nowhere"):
        assert "server" not in httpx2.get(f"{logging_service.base}{path}").headers


@pytest.mark.parametrize("identity", ["7", "01HZY-3_a.b:c/d+e=", "x" * 128])
async def test_a_callers_request_id_comes_back(watched: Watched, identity: str) -> None:
    response = await watched.client.get("/v1/things", headers={"X-Request-Id": identity})

    assert response.headers.get_list("x-request-id") == [identity]


@pytest.mark.parametrize("identity", [b"", b"x" * 129, b"two words", b"<script>", b"caf\xc3\xa9", b'"quoted"', b"a\tb"])
async def test_an_unsafe_request_id_is_not_repeated(watched: Watched, identity: bytes) -> None:
    response = await watched.client.get("/v1/things", headers=[(b"X-Request-Id", identity), TRACEPARENT])

    assert response.headers.get_list("x-request-id") == [TRACE_ID]


async def test_a_request_is_one_span_with_one_more_for_each_statement(watched: Watched) -> None:
    await watched.client.post("/v1/things", json={"name": "a secret lamp"})

    spans = {span.name: span for span in await watched.spans()}
    server = spans["POST /v1/things"]

    assert set(spans) == {"POST /v1/things", "INSERT tiny.things", "COMMIT"}
    assert {span.parent.span_id for span in spans.values() if span.parent} == {server.context.span_id}
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "http.route": "/v1/things",
        "url.path": "/v1/things",
        "url.scheme": "http",
    }
    insert = spans["INSERT tiny.things"]
    assert (insert.attributes or {})["db.system.name"] == "postgresql"
    assert "secret" not in insert.to_json()
    assert insert.start_time is not None
    assert server.start_time is not None
    assert server.start_time <= insert.start_time


async def test_a_span_holds_no_more_than_the_begin_of_a_path(watched: Watched) -> None:
    await watched.client.get("/" + "x" * 60_000)

    (span,) = await watched.spans()
    assert (span.attributes or {})["url.path"] == "/" + "x" * 1023


async def test_a_span_is_named_for_the_route_and_not_for_the_path(watched: Watched) -> None:
    await watched.client.get("/v1/failures/conflict", params={"email": "alice@example.com"})

    span = await watched.server_span()

    assert span.name == "GET /v1/failures/{family}"
    assert span.status.status_code is StatusCode.UNSET  # the caller's mistake is not our error
    assert "alice" not in span.to_json()


async def test_a_path_without_a_route_names_nothing(watched: Watched) -> None:
    for path in ("/a", "/b"):
        await watched.client.get(path)

    assert {span.name for span in await watched.spans()} == {"GET"}
    # one series for both paths: otherwise a scanner would fill the memory
    (point,) = watched.points("http.server.request.duration")
    assert "http.route" not in point.attributes


async def test_a_nested_route_is_measured_and_refused_by_its_whole_path(make_app: Callable[..., FastAPI]) -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    processors = [SimpleSpanProcessor(exporter)]
    telemetry = Telemetry(Resource({}), sampler=ALWAYS_ON, span_processors=processors, metric_readers=[reader])
    app = make_app(telemetry=telemetry)
    users, admin = APIRouter(prefix="/users"), APIRouter(prefix="/admin")

    @users.get("/{name}")
    async def show(name: str) -> str:
        return name

    admin.include_router(users)
    app.include_router(admin)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:
        assert (await client.get("/admin/users/alice")).json() == "alice"
        refused = await client.delete("/admin/users/alice")

    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    names = {span.name for span in exporter.get_finished_spans()}
    assert names == {"GET /admin/users/{name}", "DELETE /admin/users/{name}"}


async def test_a_bug_is_recorded_on_its_span_without_values_of_the_request(watched: Watched) -> None:
    await watched.client.post("/v1/things", json={"name": "one", "email": "alice@example.com"})
    watched.exporter.clear()

    response = await watched.client.post("/v1/things", json={"name": "two", "email": "alice@example.com"})

    span = await watched.server_span()
    (event,) = span.events
    assert (response.status_code, span.status.status_code) == (500, StatusCode.ERROR)
    assert event.name == "exception"
    assert (event.attributes or {})["exception.type"] == "UniqueViolationError"
    assert "create_thing" in str((event.attributes or {})["exception.stack"])
    assert not any("alice" in each.to_json() for each in await watched.spans())


async def test_durations_are_measured_by_method_route_and_status(watched: Watched) -> None:
    await watched.client.get("/v1/things")
    await watched.client.get("/v1/things")
    await watched.client.get("/v1/failures/bug")

    found = {
        (point.attributes["http.route"], point.attributes["http.response.status_code"]): point.count
        for point in watched.points("http.server.request.duration")
    }

    assert found == {("/v1/things", 200): 2, ("/v1/failures/{family}", 500): 1}


async def test_requests_that_are_not_sampled_are_measured_too(watched: Watched) -> None:
    await watched.client.get("/v1/things", headers=NOT_SAMPLED)

    assert [point.count for point in watched.points("http.server.request.duration")] == [1]


async def test_database_connections_are_measured(watched: Watched) -> None:
    await watched.client.get("/v1/things")

    points = watched.points("db.client.connection.count")
    (largest,) = watched.points("db.client.connection.max")
    (waiting,) = watched.points("db.client.connection.pending_requests")

    assert {point.attributes["db.client.connection.state"]: point.value for point in points} == {"used": 0, "idle": 1}
    assert (largest.value, waiting.value) == (Settings.model_fields["database_pool_size"].default, 0)
    assert {one.attributes["db.client.connection.pool.name"] for one in (*points, largest, waiting)} == {"tiny"}


@pytest.mark.parametrize("probe", ["/livez", "/readyz", "/startupz"])
async def test_probes_leave_nothing_behind(watched: Watched, probe: str) -> None:
    assert (await watched.client.get(probe)).status_code == 200

    assert await watched.spans() == []
    assert watched.points("http.server.request.duration") == []


async def test_half_an_answer_is_cut_off_rather_than_finished(make_app: Callable[..., FastAPI]) -> None:
    async with listening(make_app()) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/v1/half")


def test_a_bug_in_the_middle_of_an_answer_is_logged_once(logging_service: Running) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(f"{logging_service.base}/v1/half", headers={"X-Request-Id": "half-1"})
    httpx2.get(f"{logging_service.base}/v1/things", headers={"X-Request-Id": "after-half"})
    logging_service.wait_for(event="request_finished", request_id="after-half")

    (failed,) = [event for event in logging_service.events() if "no second half" in str(event)]
    assert (failed["event"], failed["request_id"]) == ("request_failed", "half-1")


@pytest.fixture(scope="module")
def logging_service(start: Start) -> Running:
    return start(LOG_REQUESTS="true")


def test_a_browser_runs_no_answer_as_another_type_and_reads_none_from_a_page_of_another_origin(
    logging_service: Running,
) -> None:
    origin = {"Origin": "https://shop.example.com"}
    for method, path in (
        ("GET", "/v1/things"),
        ("GET", "/nowhere"),
        ("GET", "/livez"),
        ("OPTIONS", "/v1/things"),
        ("BREW", "/"),
    ):
        answer = httpx2.request(method, f"{logging_service.base}{path}", headers=origin)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_bug_is_logged_once_with_its_stack_and_the_ids_that_the_client_got(logging_service: Running) -> None:
    response = httpx2.get(f"{logging_service.base}/v1/failures/bug", headers=SAMPLED | {"X-Request-Id": "bug-1"})

    logging_service.wait_for(event="request_finished", request_id="bug-1", status=500)
    (failed,) = [event for event in logging_service.events(request_id="bug-1") if "exception" in event]
    assert (failed["event"], failed["level"]) == ("request_failed", "error")
    assert failed["exception"]["type"] == "RuntimeError"
    assert "in fail" in failed["exception"]["stack"]
    assert (failed["trace_id"], failed["request_id"]) == (TRACE_ID, "bug-1")
    assert response.json()["trace_id"] == TRACE_ID
    assert response.headers["x-request-id"] == "bug-1"


def test_a_request_is_logged_by_its_route_without_its_query(logging_service: Running) -> None:
    httpx2.get(f"{logging_service.base}/v1/things?limit=7", headers={"X-Request-Id": "list-1"})

    finished = logging_service.wait_for(event="request_finished", request_id="list-1")
    assert (finished["method"], finished["route"], finished["status"]) == ("GET", "/v1/things", 200)
    assert finished["duration_ms"] > 0
    assert "limit=7" not in logging_service.output.read_text()


@pytest.mark.usefixtures("database")  # the fixture empties the table afterwards
def test_a_refused_row_does_not_get_into_the_logs_of_the_service(logging_service: Running) -> None:
    for name in ("alice", "bob"):
        httpx2.post(f"{logging_service.base}/v1/things", json={"name": name, "email": "alice@example.com"})

    assert "uq_things_email" in logging_service.output.read_text()
    assert "alice" not in logging_service.output.read_text()


def test_every_line_that_a_service_writes_is_json(logging_service: Running) -> None:
    lines = logging_service.output.read_text().splitlines()

    assert any("Started server process" in line for line in lines)
    assert all(json.loads(line)["service"] == "tiny" for line in lines)
