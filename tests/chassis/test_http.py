"""The tools of a route: the version that a change is based on, the headers of a resource, and pages."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from uuid import UUID

import httpx2
import pytest
from chassis import fields
from chassis.application import api
from chassis.http import ResourceRoute, new_id, reader, sunset
from chassis.service import Service
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket

ID = UUID("0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d")


async def change(client: httpx2.AsyncClient, if_match: str | None, body: dict | None = None) -> httpx2.Response:
    headers = {} if if_match is None else {"If-Match": if_match}
    return await client.patch(f"/v1/things/{ID}", json=body or {}, headers=headers)


@pytest.mark.parametrize(
    ("if_match", "version"),
    [('"3"', 3), (' "3" ', 3), ('W/"3"', 3), ('"999999999999999999"', 999999999999999999), ("*", None)],
)
async def test_if_match_says_which_version_a_change_is_based_on(
    client: httpx2.AsyncClient, if_match: str, version: int | None
) -> None:
    assert (await change(client, if_match)).json()["expected_version"] == version


async def test_a_change_without_if_match_is_refused_with_advice(client: httpx2.AsyncClient) -> None:
    refused = await change(client, None)

    assert (refused.status_code, refused.json()["code"]) == (428, "if_match_required")
    assert "If-Match" in refused.json()["detail"]


@pytest.mark.parametrize(
    "if_match", ["", "3", 'w/"3"', "W/3", '"3", "4"', '"three"', '"-1"', '"0"', '"1' + "0" * 18 + '"', "**"]
)
async def test_a_tag_that_we_never_gave_out_changes_nothing(client: httpx2.AsyncClient, if_match: str) -> None:
    refused = await change(client, if_match)

    assert refused.status_code in (412, 422)
    assert refused.status_code == 412 or 'one ETag in its quotes, as in "3"' in refused.json()["detail"]


async def test_the_tag_of_an_answer_is_good_for_if_match(client: httpx2.AsyncClient) -> None:
    created = (await client.post("/v1/things", json={"name": "lamp"})).json()
    shown = await client.get(f"/v1/things/{created['id']}")

    assert (await change(client, shown.headers["etag"])).json()["expected_version"] == 1


async def test_a_patch_tells_absent_from_null(client: httpx2.AsyncClient) -> None:
    assert (await change(client, "*", {})).json()["changes"] == {}
    assert (await change(client, "*", {"email": None})).json()["changes"] == {"email": None}
    assert (await change(client, "*", {"name": None})).status_code == 422


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1e9", "99999999999999999999"])
async def test_a_page_has_between_one_and_a_hundred_items(client: httpx2.AsyncClient, limit: str) -> None:
    assert (await client.get("/v1/things", params={"limit": limit})).status_code == 422
    assert (await client.get("/v1/things", params={"limit": 100})).status_code == 200


@pytest.mark.parametrize("query", ["after=x", "offset=1", "limit=1&page=2"])
async def test_a_malformed_or_unknown_parameter_is_refused(client: httpx2.AsyncClient, query: str) -> None:
    assert (await client.get(f"/v1/things?{query}")).status_code == 422


async def test_a_list_continues_from_its_cursor_and_refuses_any_other_cursor(client: httpx2.AsyncClient) -> None:
    for name in ("b", "c", "a"):
        await client.post("/v1/things", json={"name": name, "email": f"{name}@example.com"})
    search = {"sort": "-name", "limit": 2}
    first = (await client.get("/v1/things/search", params=search)).json()
    rest = (await client.get("/v1/things/search", params={**search, "after": first["next_cursor"]})).json()
    assert [item["name"] for item in first["items"] + rest["items"]] == ["c", "b", "a"]
    assert rest["next_cursor"] is None

    for other in ({"sort": "name"}, {"email": "a@example.com"}, {"after": f"{ID}"}):
        refused = await client.get("/v1/things/search", params={**search, "after": first["next_cursor"], **other})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
        [part] = refused.json()["errors"]
        assert part["pointer"] == "after"
        assert "repeat the request without `after`" in part["detail"]


async def test_new_ids_sort_by_creation_time(client: httpx2.AsyncClient) -> None:
    ids = [(await client.post("/v1/things", json={"name": f"thing {n}"})).json()["id"] for n in range(5)]

    assert ids == sorted(ids)
    assert {UUID(each).version for each in ids} == {7}


async def test_a_reader_waits_for_no_transaction(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(database_pool_size=2)
    async with app.router.lifespan_context(app), app.state.database.unit_of_work() as uow:
        await uow.connection.execute("LOCK TABLE tiny.things IN ROW EXCLUSIVE MODE")
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:
            assert (await client.get("/v1/things")).status_code == 200


def test_reader_and_transaction_outside_of_a_request_raise_an_error_with_the_remedy() -> None:
    with pytest.raises(RuntimeError, match=r"call reader\(\) and transaction\(\) only inside a route"):
        reader()


class Shown(fields.ResponseModel):
    id: fields.Identifier
    version: int


@dataclass
class Loaded:
    """The result of a use case, with more fields than the answer."""

    id: UUID = ID
    version: int = 3
    secret: str = "not for callers"


async def load() -> Loaded:
    return Loaded()


async def load_shown() -> Shown:
    return Shown(id=ID, version=3)


async def load_with_headers(request: Request, response: Response) -> Shown:
    response.headers["ETag"] = '"of the route"'
    response.headers["Location"] = str(request.url.path)
    return Shown(id=ID, version=3)


async def answer() -> Response:
    return Response("as it is")


def load_in_a_thread() -> Shown:
    return Shown(id=ID, version=3)


async def release() -> str:
    return "1.0.0"


@pytest.fixture
def resources(make_app: Callable[..., FastAPI], service: Service) -> FastAPI:
    """An application with routes of ResourceRoute, in a router that another router includes."""
    router = APIRouter(route_class=ResourceRoute)
    for path, endpoint in (("/typed", load_shown), ("/own", load_with_headers), ("/sync", load_in_a_thread)):
        router.add_api_route(path, endpoint, name=f"get_{path[1:]}")
        router.add_api_route(path, endpoint, methods=["POST"], status_code=201, name=f"post_{path[1:]}")
    router.add_api_route("/modelled", load, response_model=Shown)
    router.add_api_route("/raw", answer, response_model=Shown)
    router.add_api_route("/release", release)
    router.add_api_route("/owned by/{owner}", load_shown, methods=["POST"], status_code=201, name="post_owned")
    outer = APIRouter(prefix="/v1")
    outer.include_router(router)
    app = make_app()
    app.include_router(outer)
    return app


@pytest.mark.parametrize(
    ("method", "path", "etag", "location"),
    [
        ("GET", "/typed", '"3"', None),
        ("POST", "/typed", '"3"', f"/v1/typed/{ID}"),
        ("GET", "/modelled", '"3"', None),
        ("POST", "/own", '"of the route"', "/v1/own"),
        ("POST", "/owned%20by/J%C3%BCrgen", '"3"', f"/v1/owned%20by/J%C3%BCrgen/{ID}"),
        ("GET", "/raw", None, None),
        ("GET", "/sync", None, None),
        ("GET", "/release", None, None),
    ],
)
async def test_an_answer_describes_the_resource_that_its_route_returns(
    resources: FastAPI, method: str, path: str, etag: str | None, location: str | None
) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(resources), base_url="http://tiny") as client:
        answered = await client.request(method, f"/v1{path}")

    assert answered.is_success
    assert (answered.headers.get("ETag"), answered.headers.get("Location")) == (etag, location)
    assert "secret" not in answered.text


END = sunset(date(2027, 7, 1), since=date(2027, 1, 1))


async def test_a_route_or_a_router_announces_its_end(make_app: Callable[..., FastAPI]) -> None:
    leaving = APIRouter(prefix="/old", route_class=ResourceRoute, dependencies=[END])
    leaving.add_api_route("/one", load, response_model=Shown)
    staying = APIRouter(prefix="/new", route_class=ResourceRoute)
    staying.add_api_route("/one", load, response_model=Shown, dependencies=[END], openapi_extra={"x-own": 1})
    staying.add_api_route("/two", load_shown)
    app = make_app()
    for router in (leaving, staying):
        app.include_router(router)
    documented = app.openapi()["paths"]
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:
        for path in ("/old/one", "/new/one"):
            answer = await client.get(path)
            assert answer.headers["Sunset"] == "Thu, 01 Jul 2027 00:00:00 GMT"
            assert answer.headers["Deprecation"] == "@1798761600"
            assert answer.headers["ETag"] == '"3"'
            operation = documented[path]["get"]
            assert (operation["deprecated"], operation["x-sunset"]) == (True, "2027-07-01")
        assert documented["/new/one"]["get"]["x-own"] == 1
        assert "Sunset" not in (await client.get("/new/two")).headers
        assert "deprecated" not in documented["/new/two"]["get"]


async def test_a_route_that_makes_its_own_response_announces_its_end_too(make_app: Callable[..., FastAPI]) -> None:
    async def export() -> Response:
        return Response("a,b", headers={"X-Own": "1"})

    leaving = APIRouter(prefix="/old", route_class=ResourceRoute, dependencies=[END])
    leaving.add_api_route("/export", export)
    app = make_app()
    app.include_router(leaving)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:
        answer = await client.get("/old/export")
    assert answer.headers["Sunset"] == "Thu, 01 Jul 2027 00:00:00 GMT"
    assert answer.headers["Deprecation"] == "@1798761600"
    assert (answer.text, answer.headers["X-Own"]) == ("a,b", "1")


def test_a_route_cannot_end_before_its_deprecation() -> None:
    with pytest.raises(ValueError, match="ends on 2027-01-01, which is not after 2027-01-01"):
        sunset(date(2027, 1, 1), since=date(2027, 1, 1))


def test_the_document_describes_the_headers_of_a_resource(resources: FastAPI) -> None:
    paths = resources.openapi()["paths"]

    def headers(method: str, path: str, status: str) -> set[str]:
        return set(paths[f"/v1{path}"][method]["responses"][status].get("headers", ()))

    assert headers("get", "/typed", "200") == headers("get", "/modelled", "200") == {"ETag"}
    assert headers("post", "/typed", "201") == {"ETag", "Location"}
    assert headers("get", "/sync", "200") == headers("get", "/release", "200") == set()
    assert "304" in paths["/v1/typed"]["get"]["responses"]
    assert "304" not in paths["/v1/release"]["get"]["responses"]
    assert "parameters" not in paths["/v1/own"]["post"]


async def _stream(socket: WebSocket) -> None: ...


def test_the_document_names_the_owner_the_server_and_the_subject_of_each_tag(service: Service) -> None:
    router = APIRouter(tags=["things"])
    router.add_api_route("/things", new_id, name="things")
    router.add_api_websocket_route("/stream", _stream)
    hidden = APIRouter(tags=["hidden"])
    hidden.add_api_route("/hidden", new_id, include_in_schema=False)
    described = replace(service, routers=[router, hidden], owner="@acme/billing")
    document = api(described).openapi()

    assert document["info"]["contact"] == {"name": "@acme/billing"}
    assert document["info"]["license"] == {"name": "Proprietary", "identifier": "LicenseRef-Proprietary"}
    assert [server["url"] for server in document["servers"]] == ["/"]
    first_line = (inspect.getmodule(new_id).__doc__ or "").strip().splitlines()[0]
    assert document["tags"] == [{"name": "things", "description": first_line}]
    assert "contact" not in api(service).openapi()["info"]
    assert api(replace(service, license="Apache-2.0")).openapi()["info"]["license"]["identifier"] == "Apache-2.0"
