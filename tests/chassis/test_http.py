"""What routes may ask for: the version a change is based on, and pages."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import httpx
import pytest
from chassis.application import api
from chassis.http import SHOWN, new_id
from chassis.service import Service
from fastapi import APIRouter, FastAPI, WebSocket

ID = UUID("0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d")


async def change(client: httpx.AsyncClient, if_match: str | None, body: dict | None = None) -> httpx.Response:
    headers = {} if if_match is None else {"If-Match": if_match}
    return await client.patch(f"/v1/things/{ID}", json=body or {}, headers=headers)


@pytest.mark.parametrize(
    ("if_match", "version"),
    [('"3"', 3), (' "3" ', 3), ('W/"3"', 3), ('"999999999999999999"', 999999999999999999), ("*", None)],
)
async def test_if_match_says_which_version_a_change_is_based_on(
    client: httpx.AsyncClient, if_match: str, version: int | None
) -> None:
    assert (await change(client, if_match)).json()["expected_version"] == version


async def test_a_change_without_if_match_is_refused_with_advice(client: httpx.AsyncClient) -> None:
    refused = await change(client, None)

    assert (refused.status_code, refused.json()["code"]) == (428, "if_match_required")
    assert "If-Match" in refused.json()["detail"]


@pytest.mark.parametrize(
    "if_match", ["", "3", 'w/"3"', "W/3", '"3", "4"', '"three"', '"-1"', '"0"', '"1' + "0" * 18 + '"', "**"]
)
async def test_a_tag_that_we_never_gave_out_changes_nothing(client: httpx.AsyncClient, if_match: str) -> None:
    refused = await change(client, if_match)

    assert refused.status_code in (412, 422)
    assert refused.status_code == 412 or 'one ETag in its quotes, as in "3"' in refused.json()["detail"]


async def test_the_tag_of_an_answer_is_good_for_if_match(client: httpx.AsyncClient) -> None:
    created = (await client.post("/v1/things", json={"name": "lamp"})).json()
    shown = await client.get(f"/v1/things/{created['id']}")

    assert (await change(client, shown.headers["etag"])).json()["expected_version"] == 1


async def test_a_patch_tells_absent_from_null(client: httpx.AsyncClient) -> None:
    assert (await change(client, "*", {})).json()["changes"] == {}
    assert (await change(client, "*", {"email": None})).json()["changes"] == {"email": None}
    assert (await change(client, "*", {"name": None})).status_code == 422


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1e9", "99999999999999999999"])
async def test_a_page_has_between_one_and_a_hundred_items(client: httpx.AsyncClient, limit: str) -> None:
    assert (await client.get("/v1/things", params={"limit": limit})).status_code == 422
    assert (await client.get("/v1/things", params={"limit": 100})).status_code == 200


@pytest.mark.parametrize("query", ["after=x", "offset=1", "limit=1&page=2"])
async def test_a_malformed_or_unknown_parameter_is_refused(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/v1/things?{query}")).status_code == 422


async def test_new_ids_sort_by_the_time_they_were_made(client: httpx.AsyncClient) -> None:
    ids = [(await client.post("/v1/things", json={"name": f"thing {n}"})).json()["id"] for n in range(5)]

    assert ids == sorted(ids)
    assert {UUID(each).version for each in ids} == {7}


async def test_a_reader_waits_for_no_transaction(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(database_pool_size=2)
    async with app.router.lifespan_context(app), app.state.database.unit_of_work() as uow:
        await uow.connection.execute("LOCK TABLE tiny.things IN ROW EXCLUSIVE MODE")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tiny") as client:
            assert (await client.get("/v1/things")).status_code == 200


def test_the_document_says_that_a_copy_may_still_be_right_where_the_answer_has_a_tag(service: Service) -> None:
    router = APIRouter()
    router.add_api_route("/tagged", lambda: None, name="tagged", responses=SHOWN)
    router.add_api_route("/plain", lambda: None, name="plain")
    paths = api(replace(service, routers=[router])).openapi()["paths"]

    assert "304" in paths["/tagged"]["get"]["responses"]
    assert "304" not in paths["/plain"]["get"]["responses"]


async def _stream(socket: WebSocket) -> None: ...


def test_the_document_says_whom_to_ask_where_to_call_and_what_a_tag_is_about(service: Service) -> None:
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
