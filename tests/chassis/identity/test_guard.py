"""Routes behind the guard: who gets in, what others learn, and what is refused at the start."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from chassis.application import application
from chassis.database.unit_of_work import NoOutbox, UnitOfWork
from chassis.dev.issuer import Issuer as DevIssuer
from chassis.identity import Oidc, OidcSettings, caller, public, scopes
from chassis.identity.demands import RoutesUnguarded, demands_of
from chassis.settings import Settings, SettingsError, read
from chassis.telemetry.setup import Telemetry
from fastapi import APIRouter, FastAPI, Security, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tests.chassis.guarded import SETTINGS, URL, calls, make, router, send
from tests.chassis.issuing import Issuer
from tests.chassis.tiny.main import SERVICE


@pytest.mark.parametrize("path", ["/v1/things", "/v1/parameter", "/v1/blocking", "/v1/unit-of-work"])
async def test_a_caller_with_the_scope_gets_in_and_the_route_knows_the_caller(
    app: FastAPI, issuer: Issuer, path: str
) -> None:
    answer = await send(app, "GET", path, issuer.token())
    assert answer.status_code == 200
    assert "user-17" in answer.text
    assert UnitOfWork(cast(Any, None), NoOutbox()).subject is None


@pytest.mark.parametrize("path", ["/v1/things", "/v1/parameter", "/v1/blocking", "/admin/things"])
async def test_a_request_without_token_is_a_401(app: FastAPI, path: str) -> None:
    answer = await send(app, "GET", path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthenticated"


async def test_all_wrong_tokens_get_the_same_401(app: FastAPI, issuer: Issuer) -> None:
    answers = [
        await send(app, "GET", "/v1/things", token)
        for token in (b"x", issuer.token(aud="other"), issuer.token(exp=1), issuer.token(iss="https://other.example"))
    ]
    problems = [{**answer.json(), "trace_id": None} for answer in answers]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Bearer error="invalid_token"'}
    assert all(problem == problems[0] for problem in problems)


@pytest.mark.parametrize(
    ("path", "needed"), [("/v1/things", "things:read"), ("/admin/things", "things:admin things:read")]
)
async def test_a_token_without_the_scope_is_a_403_that_names_the_scopes(
    app: FastAPI, issuer: Issuer, path: str, needed: str
) -> None:
    answer = await send(app, "GET", path, issuer.token(scope="other"))
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'
    assert answer.json()["code"] == "insufficient_scope"


async def test_the_scopes_of_a_router_and_of_its_route_are_demanded_together(app: FastAPI, issuer: Issuer) -> None:
    for scope in ("things:read", "things:admin"):
        assert (await send(app, "GET", "/admin/things", issuer.token(scope=scope))).status_code == 403
    assert (await send(app, "GET", "/admin/things", issuer.token(scope="things:read things:admin"))).status_code == 200


async def test_scopes_of_the_whole_api_are_demanded_by_every_route_except_public_routes(issuer: Issuer) -> None:
    app = make(auth=Oidc(scopes=["tiny"]), issuer=issuer)
    assert (await send(app, "GET", "/v1/things", issuer.token())).status_code == 403
    assert (await send(app, "GET", "/v1/things", issuer.token(scope="tiny things:read"))).status_code == 200
    assert (await send(app, "GET", "/v1/prices")).status_code == 200


async def test_a_public_route_needs_no_token_and_knows_no_caller(app: FastAPI, issuer: Issuer) -> None:
    assert (await send(app, "GET", "/v1/prices")).status_code == 200
    assert (await send(app, "GET", "/v1/prices", b"wrong")).status_code == 200
    with pytest.raises(RuntimeError, match="only inside a route that demands scopes"):
        caller()


@pytest.mark.parametrize("body", [b"{", b"[" * 1000, b'{"name": 5}'])
async def test_the_body_of_a_stranger_is_not_read(app: FastAPI, body: bytes) -> None:
    answer = await send(app, "POST", "/v1/things", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 401


async def test_a_stranger_learns_no_allowed_method(app: FastAPI) -> None:
    assert (await send(app, "DELETE", "/v1/things")).status_code == 401


async def test_a_refused_request_changes_nothing(app: FastAPI, issuer: Issuer) -> None:
    calls.clear()
    await send(app, "POST", "/v1/things", issuer.token(scope="things:read"), json={"name": "lamp"})
    assert calls == []
    await send(app, "POST", "/v1/things", issuer.token(), json={"name": "lamp"})
    assert calls == ["lamp"]


async def test_a_token_in_the_query_is_ignored(app: FastAPI, issuer: Issuer) -> None:
    answer = await send(app, "GET", f"/v1/things?access_token={issuer.token().decode()}")
    assert answer.status_code == 401


async def test_two_authorization_headers_are_refused(app: FastAPI, issuer: Issuer) -> None:
    good = b"Bearer " + issuer.token()
    for headers in ([good, good], [good, b"Bearer x"], [b"Basic x", good]):
        answer = await send(app, "GET", "/v1/things", headers=[("Authorization", value) for value in headers])
        assert answer.status_code == 401


@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "Bearer   "])
async def test_the_scheme_is_read_in_any_case(app: FastAPI, issuer: Issuer, scheme: str) -> None:
    headers = {"Authorization": scheme.encode() + issuer.token()}
    assert (await send(app, "GET", "/v1/things", headers=headers)).status_code == 200


@pytest.mark.parametrize("prefix", ["Basic ", "Digest ", "Token ", "", "Bearer"])
async def test_another_scheme_is_refused(app: FastAPI, issuer: Issuer, prefix: str) -> None:
    headers = {"Authorization": prefix.encode() + issuer.token()}
    assert (await send(app, "GET", "/v1/things", headers=headers)).status_code == 401


async def test_without_keys_the_answer_is_a_503_that_says_when_to_come_again(app: FastAPI, issuer: Issuer) -> None:
    issuer.down = True
    answer = await send(app, "GET", "/v1/things", issuer.token())
    assert answer.status_code == 503
    assert answer.json()["code"] == "issuer_unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert "WWW-Authenticate" not in answer.headers


async def test_probes_need_no_token(app: FastAPI) -> None:
    assert (await send(app, "GET", "/livez")).status_code == 200


async def test_two_applications_with_the_same_routes_have_guards_of_their_own(issuer: Issuer) -> None:
    other = Issuer("https://other.example")
    first, second = make(issuer=issuer), make(issuer=other)
    for app, good, bad in ((first, issuer, other), (second, other, issuer)):
        assert (await send(app, "GET", "/v1/things", good.token())).status_code == 200
        assert (await send(app, "GET", "/v1/things", bad.token())).status_code == 401


async def test_a_browser_asks_without_token_and_reads_the_refusal(app: FastAPI) -> None:
    origin = {"Origin": "https://shop.example.com"}
    app.add_middleware(CORSMiddleware, allow_origins=[origin["Origin"]], allow_headers=["Authorization"])
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    preflight = await send(app, "OPTIONS", "/v1/things", headers={**origin, **asked})
    refused = await send(app, "GET", "/v1/things", headers=origin)
    assert (preflight.status_code, refused.status_code) == (200, 401)
    assert {each.headers["Access-Control-Allow-Origin"] for each in (preflight, refused)} == {origin["Origin"]}


def unguarded(add: Callable[[APIRouter], Any]) -> str:
    routes = APIRouter(prefix="/v1")
    add(routes)
    with pytest.raises(RoutesUnguarded) as refused:
        make(routes)
    return str(refused.value)


async def open_to_all() -> None:
    return None


async def socket(websocket: WebSocket) -> None:
    return None


@public("for a test")
@scopes("things:read")
async def contradictory() -> None:
    return None


@scopes("things:read")
async def guarded() -> None:
    return None


UNGUARDED = {
    "a route without scopes": lambda routes: routes.get("/open")(open_to_all),
    "a route that the document hides": lambda routes: routes.get("/open", include_in_schema=False)(open_to_all),
    "a plain route": lambda routes: routes.add_route("/open", open_to_all),
    "a WebSocket": lambda routes: routes.websocket("/open")(socket),
    "a WebSocket with scopes": lambda routes: routes.websocket("/open", dependencies=[scopes("things:read")])(socket),
    "a public WebSocket": lambda routes: routes.websocket("/open")(public("for a test")(socket)),
    "a folder of files": lambda routes: routes.mount("/open", StaticFiles(directory=".")),
    "a folder of files with scopes": lambda routes: routes.mount(
        "/open", scopes("things:read")(StaticFiles(directory="."))
    ),
    "another application": lambda routes: routes.mount("/open", FastAPI()),
    "a public route with scopes": lambda routes: routes.get("/open")(contradictory),
}


@pytest.mark.parametrize("add", UNGUARDED.values(), ids=UNGUARDED)
def test_a_route_without_a_statement_on_its_callers_is_refused_at_the_start(add: Callable[[APIRouter], Any]) -> None:
    assert "/open: " in unguarded(add)


def test_a_host_without_a_statement_on_its_callers_is_refused_by_its_name() -> None:
    assert "Host(host='shop.example.com'" in unguarded(lambda routes: routes.host("shop.example.com", FastAPI()))


def test_a_frontend_is_refused_because_the_guard_does_not_see_its_files(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    assert "frontend(…): serves files to everybody" in unguarded(
        lambda routes: routes.frontend("/page", directory=tmp_path)
    )


def test_an_application_behind_all_routes_is_refused_because_the_guard_sees_only_routes() -> None:
    app = FastAPI()
    app.router.default = FastAPI()
    with pytest.raises(RoutesUnguarded, match=r"router\.default: serves every other path to everybody"):
        demands_of(app, frozenset({"things:read"}))


async def test_scopes_of_another_dependency_are_demanded_too(issuer: Issuer) -> None:
    routes = APIRouter(prefix="/v1")
    routes.get("/raw", dependencies=[Security(open_to_all, scopes=["things:raw"])])(open_to_all)
    app = make(routes, issuer=issuer)
    assert (await send(app, "GET", "/v1/raw", issuer.token())).status_code == 403
    assert (await send(app, "GET", "/v1/raw", issuer.token(scope="things:raw"))).status_code == 200


def test_every_unguarded_route_is_named_at_once() -> None:
    def add(routes: APIRouter) -> None:
        routes.get("/first")(open_to_all)
        routes.get("/second")(open_to_all)

    assert unguarded(add).splitlines()[1:] == [
        f'  GET /v1/{name}: put @scopes("…") above its function, or @public("…") with the reason'
        for name in ("first", "second")
    ]


async def test_a_folder_of_files_may_be_public_with_a_reason(tmp_path: Path, issuer: Issuer) -> None:
    (tmp_path / "logo.svg").write_text("<svg/>")
    routes = APIRouter()
    routes.mount("/files", public("logos are no secret")(StaticFiles(directory=tmp_path)))
    assert (await send(make(routes, issuer=issuer), "GET", "/files/logo.svg")).status_code == 200


async def test_a_route_that_is_added_after_the_assembly_is_refused_before_the_first_request(issuer: Issuer) -> None:
    app = make(issuer=issuer)
    app.get("/late")(open_to_all)
    part = app.state.parts[-1]
    with pytest.raises(RoutesUnguarded, match="/late"):
        async with part.run(lambda: None):
            pass


LATE = {
    "the application": lambda app, routes, inner: app.add_api_route("/late", open_to_all),
    "a router of the service": lambda app, routes, inner: routes.get("/late")(guarded),
    "a router in a router": lambda app, routes, inner: inner.get("/late")(open_to_all),
    "a plain route": lambda app, routes, inner: app.add_route("/late", open_to_all),
    "a WebSocket": lambda app, routes, inner: routes.websocket("/late")(socket),
    "a folder of files": lambda app, routes, inner: app.mount("/late", StaticFiles(directory=".")),
    "a frontend": lambda app, routes, inner: routes.frontend("/late", directory="."),
    "a further router": lambda app, routes, inner: app.include_router(APIRouter(), prefix="/late"),
}


@pytest.mark.parametrize("add", LATE.values(), ids=LATE)
async def test_no_route_is_added_while_the_service_runs(issuer: Issuer, add: Callable[..., Any]) -> None:
    routes, inner = APIRouter(prefix="/v1"), APIRouter()
    routes.get("/a")(guarded)
    inner.get("/b")(guarded)
    routes.include_router(inner)
    app = make(routes, issuer=issuer)
    async with app.state.parts[-1].run(lambda: None):
        with pytest.raises(RoutesUnguarded, match="no guard covers a route that is added now"):
            add(app, routes, inner)
        assert (await send(app, "GET", "/v1/a", issuer.token())).status_code == 200
        for path in ("/late", "/v1/late", "/late/README.md"):
            assert (await send(app, "GET", path)).status_code == 404


async def test_a_public_application_opens_no_guarded_route(issuer: Issuer) -> None:
    shared, outer, inside = APIRouter(prefix="/v1"), APIRouter(), FastAPI()
    shared.get("/shared")(guarded)
    inside.include_router(shared)
    outer.mount("/partners", public("for partners")(inside))
    transport = httpx2.ASGITransport(make(outer, shared, issuer=issuer), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://tiny") as client:
        assert (await client.get("/v1/shared")).status_code == 401
        assert (await client.get("/partners/v1/shared")).status_code == 500


def test_one_router_with_two_demands_is_refused() -> None:
    shared = APIRouter()
    shared.get("/shared")(scopes("things:read")(open_to_all))
    outer = APIRouter(prefix="/v1")
    outer.include_router(shared, prefix="/a")
    outer.include_router(shared, prefix="/b", dependencies=[scopes("things:admin")])
    with pytest.raises(RoutesUnguarded, match="Make two routers"):
        make(outer)


def test_scopes_name_at_least_one_scope() -> None:
    with pytest.raises(ValueError, match="name at least one scope"):
        scopes()


@pytest.mark.parametrize(
    "use",
    [
        lambda: Oidc(scopes="billing"),
        lambda: Oidc(claims="tenant"),
        lambda: Oidc(scopes=[scopes("billing")]),
        lambda: scopes(["things:read"]),
        lambda: scopes(open_to_all),
        lambda: DevIssuer("tiny").token(scopes="things:read"),
    ],
)
def test_a_text_or_an_object_in_place_of_texts_is_refused(use: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r'takes texts, as in \["invoices:read"\], and not '):
        use()


@pytest.mark.parametrize("name", ["", "two words", 'quo"te', "new\nline", "ümlaut", "back\\slash"])
@pytest.mark.parametrize("where", ["route", "router", "dependency", "API"])
def test_a_word_that_no_challenge_can_name_is_refused_as_a_scope(where: str, name: str) -> None:
    routes = APIRouter(prefix="/v1", dependencies=[scopes(name)] if where == "router" else [])
    wanted = [Security(open_to_all, scopes=[name])] if where == "dependency" else []
    routes.get("/a", dependencies=wanted)(scopes(name)(open_to_all) if where == "route" else open_to_all)
    with pytest.raises(RoutesUnguarded, match="GET /v1/a: a scope is a word in ASCII"):
        make(routes, auth=Oidc(scopes=[name] if where == "API" else []))


@pytest.mark.parametrize("reason", [" ", open_to_all])
def test_a_public_route_needs_a_reason(reason: Any) -> None:
    with pytest.raises(ValueError, match="give the reason"):
        public(reason)


def refused_settings(patch: pytest.MonkeyPatch, changed: dict[str, str]) -> str:
    for name, value in {**SETTINGS, **changed}.items():
        patch.setenv(name.upper(), value)
    with pytest.raises(SettingsError) as refused:
        read(OidcSettings)
    return str(refused.value)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"oidc_issuer": ""}, "OIDC_ISSUER: is not set"),
        ({"oidc_audience": ""}, "OIDC_AUDIENCE: is not set"),
        ({"oidc_issuer": "issuer.example"}, "OIDC_ISSUER: must be https:// URLs"),
        ({"oidc_issuer": "https://user:secret@issuer.example"}, "OIDC_ISSUER: must be https:// URLs"),
        ({"oidc_jwks_url": "file:///etc/passwd"}, "OIDC_JWKS_URL: must be https:// URLs"),
        ({"oidc_jwks_url": "https://a/keys https://b/keys"}, "has 2 URLs, but OIDC_ISSUER has 1"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], sentence: str
) -> None:
    refused = refused_settings(monkeypatch, changed)
    assert sentence in refused
    assert "secret" not in refused


def test_keys_are_fetched_encrypted_where_encryption_is_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").touch()
    url = f"postgresql://user@host/db?sslmode=verify-full&sslrootcert={tmp_path}/ca.pem"
    changed = {"database_url": url, "require_tls": "true", "oidc_issuer": "http://issuer.example"}
    assert "REQUIRE_TLS is true, so the keys of an issuer need an https:// URL" in refused_settings(
        monkeypatch, changed
    )


def test_settings_without_an_issuer_are_refused_for_a_service_with_identity() -> None:
    service = dataclasses.replace(SERVICE, routers=[router], auth=Oidc())
    with pytest.raises(SettingsError, match="derive the class Settings"):
        application(service, Settings.model_validate({"database_url": URL}))


async def test_logs_spans_and_a_metric_have_the_reason_and_nothing_has_the_token(
    issuer: Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    spans, measurements = InMemorySpanExporter(), InMemoryMetricReader()
    processors: list[Any] = [SimpleSpanProcessor(spans)]
    telemetry = Telemetry(Resource({}), sampler=ALWAYS_ON, span_processors=processors, metric_readers=[measurements])
    app = make(telemetry=telemetry, issuer=issuer)
    token = issuer.token(aud="other")
    for _ in range(3):
        await send(app, "GET", "/v1/things", token)
    lines = [line for line in capsys.readouterr().out.splitlines() if "request_refused" in line]
    assert len(lines) == 1
    assert all(word in lines[0] for word in ("claim_wrong: aud", "list_things"))
    assert all(span.attributes["chassis.identity.refused"] == "claim_wrong: aud" for span in spans.get_finished_spans())
    found = measurements.get_metrics_data()
    points = [
        (point.attributes, point.value)
        for metric in found.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "chassis.identity.refused"
        for point in metric.data.data_points
    ]
    assert points == [({"reason": "claim_wrong: aud"}, 3)]
    everything = f"{lines}{[span.to_json() for span in spans.get_finished_spans()]}{found.to_json()}"
    assert all(part not in everything for part in token.decode().split("."))


async def test_the_document_shows_scopes_refusals_and_reasons() -> None:
    document = make().openapi()
    assert document["components"]["securitySchemes"]["accessToken"]["scheme"] == "bearer"
    shown = {path: operations["get"] for path, operations in document["paths"].items() if "get" in operations}
    assert shown["/v1/things"]["security"] == [{"accessToken": ["things:read"]}]
    assert shown["/v1/parameter"]["security"] == [{"accessToken": ["things:read"]}]
    assert shown["/admin/things"]["security"] == [{"accessToken": ["things:admin", "things:read"]}]
    assert {"401", "403", "503"} <= set(shown["/v1/things"]["responses"])
    assert "`issuer_unavailable`" in document["components"]["responses"]["Unavailable"]["description"]
    assert (shown["/v1/prices"]["security"], shown["/v1/prices"]["x-public"]) == (
        [],
        "the price list is on our website",
    )
    assert not {"401", "403"} & set(shown["/v1/prices"]["responses"])


def test_the_document_of_a_service_without_identity_names_no_security() -> None:
    service = dataclasses.replace(SERVICE, routers=[router])
    document = application(service, Settings.model_validate({"database_url": URL})).openapi()
    assert "securitySchemes" not in document["components"]
    assert "issuer_unavailable" not in str(document)
    assert all("security" not in operation for path in document["paths"].values() for operation in path.values())
