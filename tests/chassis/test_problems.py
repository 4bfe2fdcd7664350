"""Every failure is a problem document with a stable code, and reveals none of the data."""

import gzip
import json
from collections.abc import Callable

import httpx2
import pytest
from chassis.errors import DomainError
from chassis.problems import LONGEST_POINTER, openapi_response, problems
from fastapi import FastAPI, HTTPException

from tests.chassis.sockets import listening
from tests.chassis.tiny.api import ThingNotFound, ThingTaken


def problem(response: httpx2.Response) -> dict:
    """Return the document, after a check of the parts that all documents have."""
    document = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert document["status"] == response.status_code
    assert document["type"] == f"/problems/{document['code']}"
    assert document["title"]
    assert len(document["trace_id"]) == 32
    return document


@pytest.mark.parametrize(
    ("family", "status", "code"),
    [
        ("not-found", 404, "thing_not_found"),
        ("conflict", 409, "thing_taken"),
        ("forbidden", 403, "thing_hidden"),
        ("outdated", 412, "version_mismatch"),
        ("bug", 500, "internal_error"),
    ],
)
async def test_each_family_of_errors_has_a_status(
    client: httpx2.AsyncClient, family: str, status: int, code: str
) -> None:
    document = problem(await client.get(f"/v1/failures/{family}"))

    assert (document["status"], document["code"]) == (status, code)


async def test_a_domain_error_tells_the_client_its_message_and_a_bug_does_not(client: httpx2.AsyncClient) -> None:
    assert problem(await client.get("/v1/failures/conflict"))["detail"] == "it is taken"
    assert "engineers" not in (await client.get("/v1/failures/bug")).text


def test_an_error_outside_every_family_is_refused_in_the_list_of_a_route() -> None:
    class Homeless(DomainError):
        code = "homeless"

    with pytest.raises(TypeError, match="Homeless belongs to no family of errors"):
        problems(Homeless)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "malformed_request"),
        (401, "unauthenticated"),
        (403, "forbidden"),
        (406, "not_acceptable"),
        (410, "gone"),
        (413, "request_too_large"),
        (414, "uri_too_long"),
        (416, "range_not_satisfiable"),
        (418, "i_m_a_teapot"),
        (429, "too_many_requests"),
        (499, "http_error"),
        (502, "bad_gateway"),
        (503, "unavailable"),
    ],
)
async def test_each_status_that_a_route_raises_has_a_stable_code(
    make_app: Callable[..., FastAPI], status: int, code: str
) -> None:
    app = make_app()

    @app.get("/raise")
    async def refuse() -> None:
        raise HTTPException(status, headers={"WWW-Authenticate": "Bearer", "Retry-After": "7"})

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:
        response = await client.get("/raise")

    assert problem(response)["code"] == code
    assert (response.headers["www-authenticate"], response.headers["retry-after"]) == ("Bearer", "7")
    if status != 499:
        assert f"`{code}`" in openapi_response(status)["description"] or status == 503


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"name": "lamp"', "not JSON: Expecting ',' delimiter at character 15"),
        (b"", "Field required"),
        (b'{"name": lamp}', "not JSON: Expecting value at character 9"),
        (b'{"name": "a\x00b"}', "not JSON: Invalid control character at character 11"),
        (b'{"name": "caf\xe9"}', "not UTF-8 at byte 13"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"name": ' + b"9" * 5000 + b"}", "a number in the body has too many digits"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_with_the_reason_and_the_place(
    client: httpx2.AsyncClient, body: bytes, reason: str
) -> None:
    refused = problem(await client.post("/v1/things", content=body, headers={"Content-Type": "application/json"}))

    assert (refused["status"], refused["code"]) == ((400, "malformed_request") if body else (422, "invalid_request"))
    assert reason in refused["detail"]


async def test_a_compressed_body_is_refused_with_its_encoding(client: httpx2.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await client.post("/v1/things", content=gzip.compress(b'{"name": "lamp"}'), headers=headers)

    assert problem(answer)["code"] == "unsupported_media_type"
    assert "without Content-Encoding" in problem(answer)["detail"]
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("media_type", ["application/json", "application/JSON; charset=utf-8", "application/x+json"])
async def test_json_in_another_encoding_is_refused(client: httpx2.AsyncClient, media_type: str) -> None:
    for encoding, status in (("gzip", 415), ("br, gzip", 415), ("nonsense", 415), ("Identity", 200), ("", 200)):
        headers = {"Content-Type": media_type, "Content-Encoding": encoding}
        answer = await client.post("/v1/values", content=b'{"text": "lamp"}', headers=headers)
        assert answer.status_code == status, encoding


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
async def test_json_is_utf_8(client: httpx2.AsyncClient, encoding: str) -> None:
    for body in ('{"name": "lamp"}', " [1]", "1"):
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/v1/things", content=body.encode(encoding), headers=headers)
        assert problem(answer)["code"] == "malformed_request"
        assert "JSON is UTF-8" in problem(answer)["detail"]


async def test_a_body_that_is_no_json_may_have_any_encoding(client: httpx2.AsyncClient) -> None:
    headers = {"Content-Type": "text/csv; charset=utf-16", "Content-Encoding": "gzip"}
    assert (await client.post("/v1/bytes", content=b"a\0b\0", headers=headers)).json() == 4


def test_a_route_documents_its_errors_by_status_and_code() -> None:
    documented = problems(ThingNotFound, ThingTaken)

    assert set(documented) == {404, 409}
    assert "`thing_taken`" in documented[409]["description"]


@pytest.mark.parametrize(
    ("method", "path", "code", "detail"),
    [
        ("GET", "/v1/nothing", "route_not_found", "no route has this path; a slash at the end matters"),
        ("GET", "/v1/things/", "route_not_found", "no route has this path; a slash at the end matters"),
        ("PUT", "/v1/things", "method_not_allowed", "this path allows GET, HEAD, POST"),
    ],
)
async def test_a_request_without_a_route_is_a_problem_too(
    client: httpx2.AsyncClient, method: str, path: str, code: str, detail: str
) -> None:
    document = problem(await client.request(method, path))
    assert (document["code"], document["detail"]) == (code, detail)


async def test_a_wrong_method_is_answered_with_all_allowed_methods(client: httpx2.AsyncClient) -> None:
    assert (await client.put("/v1/things")).headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("raised", "status", "detail"),
    [
        (HTTPException(409, {"why": "because"}), 409, '{"why": "because"}'),
        (HTTPException(499, "gone away"), 499, "gone away"),
        (HTTPException(418), 418, None),
        (HTTPException(404), 404, None),
    ],
)
async def test_every_exception_that_fastapi_accepts_becomes_a_problem(
    make_app: Callable[..., FastAPI], raised: HTTPException, status: int, detail: str | None
) -> None:
    async with listening(raising(make_app(), raised)) as client:
        document = problem(await client.get("/v1/raised"))
    assert (document["status"], document.get("detail")) == (status, detail)


async def test_an_answer_that_is_no_failure_is_no_problem(make_app: Callable[..., FastAPI]) -> None:
    async with listening(raising(make_app(), HTTPException(304, headers={"ETag": '"3"'}))) as client:
        answer = await client.get("/v1/raised")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"3"')


def raising(app: FastAPI, error: HTTPException) -> FastAPI:
    @app.get("/v1/raised")
    async def raise_it() -> None:
        raise error

    return app


async def test_every_broken_rule_is_pointed_at(client: httpx2.AsyncClient) -> None:
    document = problem(
        await client.post("/v1/values", json={"integer": "1", "money": {"amount": 1, "currency": "x"}, "a/b~c": 1})
    )

    assert document["code"] == "invalid_request"
    assert {part["pointer"] for part in document["errors"]} == {"#/integer", "#/money/currency", "#/a~1b~0c"}
    assert all(part["detail"] for part in document["errors"])


async def test_a_body_that_is_no_object_is_told_so_in_words_of_json(client: httpx2.AsyncClient) -> None:
    document = problem(await client.post("/v1/values", json=[1]))

    assert document["errors"] == [{"pointer": "#", "detail": "Input should be an object"}]


async def test_a_broken_rule_of_a_parameter_is_named(client: httpx2.AsyncClient) -> None:
    document = problem(await client.get("/v1/things", params={"limit": 0}))

    assert [part["pointer"] for part in document["errors"]] == ["limit"]


async def test_a_long_name_that_the_caller_made_up_is_not_repeated_whole(client: httpx2.AsyncClient) -> None:
    document = problem(await client.post("/v1/values", json={"x" * 5000: 1}))

    assert document["errors"][0]["pointer"] == "#/" + "x" * (LONGEST_POINTER - 2) + "…"
    assert len(document["detail"]) < LONGEST_POINTER + 100


@pytest.mark.parametrize("body", [{"text": "a-secret-that-is-too-long"}, {"integer": "a-secret"}, {"x": "a-secret"}])
async def test_a_refused_value_is_not_repeated(client: httpx2.AsyncClient, body: dict) -> None:
    assert "a-secret" not in (await client.post("/v1/values", json=body)).text


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 422),
        (b"\xff\xfe", "application/json", 400),
        (b'{"text": "x"}', "text/plain", 415),
        (b'{"text": "\\ud800"}', "application/json", 422),
        (b'{"integer": 1e999}', "application/json", 422),
        (b'{"integer": NaN}', "application/json", 422),
        (b"[" * 100_000, "application/json", 400),
    ],
)
async def test_a_body_that_no_model_can_hold_is_the_clients_mistake(
    client: httpx2.AsyncClient, body: bytes, media_type: str, status: int
) -> None:
    response = await client.post("/v1/values", content=body, headers={"Content-Type": media_type})

    assert problem(response)["status"] == status


async def test_a_database_that_is_away_is_unavailable_and_says_when_to_come_back(make_app, link) -> None:
    link.cut()
    async with listening(make_app(database_url=link.url)) as client:
        response = await client.get("/v1/things")

    assert problem(response)["code"] == "database_unavailable"
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1


def test_the_api_document_shows_problems_and_nothing_of_fastapis_own_errors(app: FastAPI) -> None:
    document = app.openapi()
    get = document["paths"]["/v1/things/{thing_id}"]["get"]["responses"]

    assert {"404", "422", "503"} <= set(get)
    assert "thing_not_found" in get["404"]["description"]
    assert "HTTPValidationError" not in json.dumps(document)
