"""Requests of somebody who looks for a way around the guard, or for facts in its answers."""

from typing import Any

import pytest
from chassis.identity import public, scopes
from fastapi import APIRouter, FastAPI

from tests.chassis.guarded import make, send
from tests.chassis.issuing import Issuer

RULES = APIRouter(prefix="/v1/rules")


@RULES.get("/{number}")
@scopes("rules:read")
async def get_rule(number: int) -> int:
    return number


@RULES.put("/{number}")
@public("everybody may propose a rule")
async def put_rule(number: int) -> int:
    return number


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "BREW"])
async def test_no_method_gets_around_the_guard(app: FastAPI, method: str) -> None:
    assert (await send(app, method, "/v1/things")).status_code == 401


async def test_no_method_is_a_way_from_a_public_route_to_a_guarded_route_of_the_same_path(issuer: Issuer) -> None:
    app = make(RULES, issuer=issuer)
    found = {
        method: (await send(app, method, "/v1/rules/1")).status_code for method in ("GET", "HEAD", "PUT", "DELETE")
    }
    assert found == {"GET": 401, "HEAD": 401, "PUT": 200, "DELETE": 401}


@pytest.mark.parametrize(
    "path",
    ["/v1/things/", "/v1//things", "//v1/things", "/v1/things%2f", "/V1/things", "/v1/./things", "/v1/x/../things"],
)
async def test_no_other_spelling_of_a_path_reaches_a_route_or_is_redirected(app: FastAPI, path: str) -> None:
    answer = await send(app, "GET", path)
    assert answer.status_code in (401, 404)  # 401 where the HTTP client itself shortens the path
    assert "location" not in answer.headers


async def test_a_stranger_does_not_learn_which_values_a_path_takes(issuer: Issuer) -> None:
    app = make(RULES, issuer=issuer)
    answers = [await send(app, "GET", f"/v1/rules/{value}") for value in ("1", "9999999999", "x", "-1")]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content.replace(answer.json()["trace_id"].encode(), b"") for answer in answers}) == 1


@pytest.mark.parametrize("where", ["query", "form", "cookie", "x-forwarded", "proxy"])
async def test_a_token_outside_of_its_header_is_ignored(app: FastAPI, issuer: Issuer, where: str) -> None:
    token = issuer.token().decode()
    options: dict[str, dict[str, Any]] = {
        "query": {"params": {"access_token": token}},
        "form": {"data": {"access_token": token}},
        "cookie": {"headers": {"Cookie": f"access_token={token}; Authorization=Bearer {token}"}},
        "x-forwarded": {"headers": {"X-Forwarded-Access-Token": token, "X-Forwarded-User": "admin"}},
        "proxy": {"headers": {"Proxy-Authorization": f"Bearer {token}"}},
    }
    assert (await send(app, "POST", "/v1/things", **options[where])).status_code == 401


@pytest.mark.parametrize("second", [b"", b" ", b"Bearer", b"Bearer ", b"Basic eA==", b",", None])
@pytest.mark.parametrize("order", [1, -1])
async def test_a_second_header_makes_no_token_valid(
    app: FastAPI, issuer: Issuer, second: bytes | None, order: int
) -> None:
    good = b"Bearer " + issuer.token()
    values = [good, good if second is None else second][::order]
    answer = await send(app, "GET", "/v1/things", headers=[("Authorization", value) for value in values])
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "value", [b"Bearer", b"Bearer ", b"Bearer \xff\xfe", b"Bearer a b", b"\xc3\xa9", b"Bearer," + b"x" * 9]
)
async def test_a_header_of_odd_bytes_is_refused(app: FastAPI, value: bytes) -> None:
    assert (await send(app, "GET", "/v1/things", headers={"Authorization": value})).status_code == 401


async def test_nothing_that_a_caller_sends_is_in_the_challenge_or_the_problem(app: FastAPI, issuer: Issuer) -> None:
    marks = {"sub": 'mark"\r\nSet-Cookie: a=b', "scope": 'mark", error="none'}
    for token in (b"mark", issuer.token(**marks), issuer.token(aud="mark"), issuer.token(scope="mark")):
        answer = await send(app, "GET", "/v1/things?mark=mark", token)
        assert answer.status_code in (401, 403)
        assert "mark" not in f"{answer.headers}{answer.text}"
