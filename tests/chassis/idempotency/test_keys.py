"""A POST that is sent again with its key has its effect once, and gets the first answer again."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from datetime import timedelta
from functools import partial
from typing import Any

import httpx2
import pytest
from chassis.application import api
from chassis.database import Database
from chassis.http import ResourceRoute
from chassis.idempotency import IdempotencyKeys, keys, stored_answers
from fastapi import APIRouter

from tests.chassis.idempotency import keyed
from tests.chassis.issuing import Issuer
from tests.chassis.serving import serving
from tests.support.link import Link

LAMP = {"name": "lamp"}


keyed_serving = partial(serving, base_url="http://tiny/v1", raise_app_exceptions=False)


@pytest.fixture
async def client(database_url: str, database: Database) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of the keyed routes; `database` deletes what they insert."""
    keyed.calls.clear()
    keyed.holding.clear()
    keyed.freed.clear()
    async with keyed_serving(keyed.make(database_url)) as client:
        yield client


async def post(client: httpx2.AsyncClient, path: str, body: Any = None, key: str | None = "k-1") -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(path, json=LAMP if body is None else body, headers=headers)


async def names(database: Database) -> list[str]:
    return [row["name"] for row in await database.fetch("SELECT name FROM tiny.things ORDER BY id")]


def said(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def replayed(response: httpx2.Response) -> bool:
    return response.headers.get("Idempotent-Replayed") == "true"


async def test_a_repeated_request_gets_the_first_answer_and_has_no_second_effect(
    client: httpx2.AsyncClient, database: Database
) -> None:
    first = await post(client, "/things")
    again = await post(client, "/things")
    assert (first.status_code, replayed(first), replayed(again)) == (201, False, True)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for header in ("Location", "ETag", "Content-Type", "Content-Length", "Cache-Control"):
        assert again.headers[header] == first.headers[header], header
    assert await names(database) == ["lamp"]


async def test_requests_without_a_key_and_with_other_keys_have_effects_of_their_own(
    client: httpx2.AsyncClient, database: Database
) -> None:
    for number, key in enumerate((None, None, "k-1", "k-2")):
        response = await post(client, "/things", {"name": f"thing {number}"}, key)
        assert (response.status_code, replayed(response)) == (201, False)
    assert len(await names(database)) == 4


@pytest.mark.parametrize(
    ("path", "body"), [("/things", {"name": "chair"}), ("/read-back", LAMP), ("/things?x=1", LAMP)]
)
async def test_a_key_with_another_body_path_or_query_is_refused(
    client: httpx2.AsyncClient, database: Database, path: str, body: Any
) -> None:
    await post(client, "/things")
    assert said(await post(client, path, body)) == (422, "idempotency_key_reused")
    assert await names(database) == ["lamp"]


@pytest.mark.parametrize(
    "key", ["", " ", "a b", "é", 'a"b', '"a', '""', "a\\b", "k" * 256, '"' + "k" * 256 + '"', "\x7f"]
)
async def test_a_malformed_key_is_refused_with_the_rule(
    client: httpx2.AsyncClient, database: Database, key: str
) -> None:
    response = await client.post("/things", json=LAMP, headers=[(b"Idempotency-Key", key.encode())])
    assert said(response) == (400, "idempotency_key_invalid")
    assert "1 to 255 visible characters" in response.json()["detail"]
    assert await names(database) == []


async def test_two_keys_in_one_request_are_refused(client: httpx2.AsyncClient) -> None:
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    assert said(await client.post("/things", json=LAMP, headers=twice)) == (400, "idempotency_key_invalid")


@pytest.mark.parametrize("key", ["k" * 255, "!#-[]~", "8e03978e-40d5-43dd-bc93-6894a57f9324"])
async def test_a_key_is_the_same_with_the_quotes_of_the_draft_and_without(
    client: httpx2.AsyncClient, database: Database, key: str
) -> None:
    assert (await post(client, "/things", key=f'"{key}"')).status_code == 201
    assert replayed(await post(client, "/things", key=key))
    assert await names(database) == ["lamp"]


async def test_a_request_whose_twin_is_running_is_told_to_come_back(
    client: httpx2.AsyncClient, database_url: str, database: Database
) -> None:
    first = asyncio.create_task(post(client, "/held"))
    await keyed.holding.wait()
    async with keyed_serving(keyed.make(database_url)) as second:  # another replica
        refused = await post(second, "/held")
        assert (said(refused), refused.headers["Retry-After"]) == ((409, "idempotency_key_in_use"), "1")
        keyed.freed.set()
        assert (await first).status_code == 201
        again = await post(second, "/held")
    assert (replayed(again), again.content) == (True, (await first).content)
    assert await names(database) == ["lamp"]


async def test_twenty_requests_with_one_key_at_once_have_one_effect(
    client: httpx2.AsyncClient, database_url: str, database: Database
) -> None:
    async with keyed_serving(keyed.make(database_url)) as second:
        found = await asyncio.gather(*(post(each, "/things") for each in [client, second] * 10))
    assert {response.status_code for response in found} <= {201, 409}
    assert len({response.content for response in found if response.status_code == 201}) == 1
    assert await names(database) == ["lamp"]


async def test_a_refused_request_that_changed_nothing_is_not_stored(
    client: httpx2.AsyncClient, database: Database
) -> None:
    invalid = await post(client, "/things", {"name": "x" * 41})
    assert invalid.status_code == 422
    for _ in range(2):
        assert said(await post(client, "/refused", key="k-2")) == (409, "thing_taken")
    assert keyed.calls == ["lamp", "lamp"]
    assert (await post(client, "/things")).status_code == 201  # the key of the invalid request is free
    assert await names(database) == ["lamp"]


async def test_a_refusal_that_changed_something_is_stored_with_its_change(
    client: httpx2.AsyncClient, database: Database
) -> None:
    first, again = [await post(client, "/counted") for _ in range(2)]
    assert (said(first), again.content, replayed(again)) == ((403, "unwelcome"), first.content, True)
    assert (await names(database), keyed.calls) == (["lamp"], ["lamp"])


async def test_a_request_that_fails_halfway_leaves_nothing_behind_and_may_be_repeated(
    client: httpx2.AsyncClient, database: Database
) -> None:
    for _ in range(2):
        assert (await post(client, "/broken")).status_code == 500
    assert await names(database) == []
    assert (await post(client, "/broken", key=None)).status_code == 500
    assert await names(database) == ["lamp"]


async def test_an_error_in_one_of_several_transactions_undoes_only_this_transaction(
    client: httpx2.AsyncClient, database: Database
) -> None:
    body = [{"name": name} for name in ("a", "unfit", "b")]
    for _ in range(2):
        assert (await post(client, "/batch", body)).json() == ["a", "b"]
    assert await names(database) == ["a", "b"]


async def test_a_route_that_swallows_a_broken_statement_does_not_report_undone_changes(
    client: httpx2.AsyncClient, database: Database
) -> None:
    body = [{"name": name, "email": "lamp@example.com"} for name in ("a", "b")]
    assert (await post(client, "/swallowed", body)).status_code == 500
    assert (await names(database), keyed.calls) == ([], ["swallowed"])


async def test_a_route_commits_no_half_of_a_transaction_that_was_given_up(
    client: httpx2.AsyncClient, database: Database
) -> None:
    body = [{"name": name} for name in ("a", "half", "b")]
    assert (await post(client, "/given-up", body)).status_code == 500
    assert await names(database) == []


async def test_a_route_that_swallows_every_error_claims_no_effect_that_its_twin_may_have(
    client: httpx2.AsyncClient, database: Database
) -> None:
    first = asyncio.create_task(post(client, "/held"))
    await keyed.holding.wait()
    assert said(await post(client, "/fallen-back")) == (409, "idempotency_key_in_use")
    keyed.freed.set()
    assert (await first).status_code == 201
    assert await names(database) == ["lamp"]


async def test_a_change_by_the_reader_after_a_refusal_is_not_lost(
    client: httpx2.AsyncClient, database: Database
) -> None:
    assert (await post(client, "/by-the-reader")).status_code == 200
    assert await names(database) == ["lamp"]


async def test_a_read_sees_the_changes_of_the_transaction_before(client: httpx2.AsyncClient) -> None:
    assert (await post(client, "/read-back")).json() == ["lamp"] * 3


async def test_a_failed_commit_is_answered_as_without_a_key(client: httpx2.AsyncClient, database: Database) -> None:
    await post(client, "/things")
    for path in ("/things", "/stream"):
        taken = [await post(client, path, key=key) for key in ("k-2", "k-2", None)]
        assert [response.status_code for response in taken] == [500] * 3
    assert await names(database) == ["lamp"]


async def test_an_answer_that_cannot_be_stored_takes_its_change_back(
    client: httpx2.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise OSError("the connection breaks")

    monkeypatch.setattr(stored_answers, "keep", fail)
    assert (await post(client, "/things")).status_code >= 500
    assert await names(database) == []


async def test_an_outage_is_answered_as_an_outage_and_stores_nothing(database_url: str, database: Database) -> None:
    keyed.holding.clear()
    keyed.freed.clear()
    with Link(database_url) as link:
        async with keyed_serving(keyed.make(link.url)) as client:
            first = asyncio.create_task(post(client, "/held"))
            await keyed.holding.wait()
            link.cut()
            keyed.freed.set()
            assert said(await first) == (503, "database_unavailable")
            assert said(await post(client, "/held")) == (503, "database_unavailable")
    assert await names(database) == []


async def test_a_large_or_streamed_answer_is_not_kept_and_its_effect_happens_once(
    client: httpx2.AsyncClient, database: Database
) -> None:
    assert (await post(client, "/large", {"name": "large"})).status_code == 201
    assert said(await post(client, "/large", {"name": "large"})) == (409, "answer_not_kept")
    streamed = await post(client, "/stream", {"name": "streamed"}, "k-2")
    assert (streamed.status_code, streamed.content) == (200, b"one two")
    assert said(await post(client, "/stream", {"name": "streamed"}, "k-2")) == (409, "answer_not_kept")
    assert await names(database) == ["large", "streamed"]


async def test_a_background_task_has_a_transaction_of_its_own_after_the_commit(
    client: httpx2.AsyncClient, database: Database
) -> None:
    for _ in range(2):
        assert (await post(client, "/background")).status_code == 204
    assert await names(database) == ["lamp", "lamp again"]


async def test_a_request_that_changes_nothing_stores_nothing(client: httpx2.AsyncClient, database: Database) -> None:
    assert [(await post(client, "/question")).json() for _ in range(2)] == [1, 2]
    assert await database.fetch("SELECT FROM chassis.idempotency_keys") == []


async def test_only_a_post_takes_a_key(client: httpx2.AsyncClient, database: Database) -> None:
    for name in ("a", "b"):
        response = await client.put("/things", json={"name": name}, headers={"Idempotency-Key": "k 1"})
        assert response.status_code == 200
    uploaded = [await client.post("/upload", content=b"abc", headers={"Idempotency-Key": "k 1"}) for _ in range(2)]
    assert [response.json() for response in uploaded] == [3, 3]
    assert await names(database) == ["a", "b"]


async def test_a_service_without_the_part_ignores_the_header(database_url: str, database: Database) -> None:
    async with keyed_serving(keyed.make(database_url, idempotency=False)) as client:
        for name in ("a", "b"):
            assert (await post(client, "/things", {"name": name}, "k 1")).status_code == 201
    assert await names(database) == ["a", "b"]


async def test_transactions_that_a_request_starts_at_the_same_time_take_turns(
    client: httpx2.AsyncClient, database: Database
) -> None:
    body = [{"name": each} for each in "abc"]
    answers = [await post(client, "/gathered", body) for _ in range(2)]
    assert [(each.status_code, replayed(each)) for each in answers] == [(200, False), (200, True)]
    assert sorted(await names(database)) == ["a", "b", "c"]


async def test_a_failed_transaction_among_several_at_the_same_time_undoes_only_its_own_changes(
    client: httpx2.AsyncClient, database: Database
) -> None:
    response = await post(client, "/gathered", [{"name": "a"}, {"name": "unfit"}, {"name": "b"}])
    assert response.json() == ["a", "b"]
    assert sorted(await names(database)) == ["a", "b"]


async def test_a_key_never_crosses_callers(database_url: str, database: Database) -> None:
    issuer = Issuer()
    async with keyed_serving(keyed.make(database_url, issuer=issuer)) as client:

        async def send(name: str, path: str = "/things", **claims: Any) -> httpx2.Response:
            token = issuer.token(**{"scope": "things:write", **claims}).decode()
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k-1"}
            return await client.post(path, json={"name": name}, headers=headers)

        callers = [
            {"sub": "ann", "client_id": "web"},
            {"sub": "bob", "client_id": "web"},
            {"sub": "ann", "client_id": "app"},
        ]
        for number, caller in enumerate(callers):
            created = await send(f"thing {number}", **caller)
            assert (created.status_code, replayed(created)) == (201, False)
            again = await send(f"thing {number}", **caller)
            assert (again.content, replayed(again)) == (created.content, True)
        denied = await send("thing 0", sub="ann", azp="web", scope="other")
        assert said(denied) == (403, "insufficient_scope")
        signs = [await send("sign", "/signs", **caller) for caller in callers]  # a public route knows no caller
        assert [replayed(response) for response in signs] == [False, True, True]
        assert signs[2].headers.get_list("Set-Cookie") == ["a=1", "b=2"]
    assert await names(database) == ["thing 0", "thing 1", "thing 2", "sign"]


async def test_a_key_stays_behind_the_guard_after_an_application_without_keys_has_served_the_routes(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = APIRouter(prefix="/v1", route_class=ResourceRoute)  # no other test has put these routes behind a guard
    fresh.add_api_route("/things", keyed.create_as_caller, methods=["POST"], status_code=201)
    monkeypatch.setattr(keyed, "guarded", fresh)
    issuer = Issuer()
    keyed.make(database_url, issuer=issuer, idempotency=False)
    async with keyed_serving(keyed.make(database_url, issuer=issuer)) as client:
        for subject in ("ann", "bob"):
            token = issuer.token(scope="things:write", sub=subject).decode()
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k-1"}
            created = [await client.post("/things", json={"name": subject}, headers=headers) for _ in range(2)]
            assert [(each.status_code, replayed(each)) for each in created] == [(201, False), (201, True)]
        assert (await post(client, "/things", {"name": "ann"})).status_code == 401
    assert await names(database) == ["ann", "bob"]


async def test_answers_are_forgotten_after_their_time_in_batches(
    client: httpx2.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_answers, "BATCH", 2)
    for number in range(5):
        await post(client, "/things", {"name": f"thing {number}"}, f"k-{number}")
    age = "UPDATE chassis.idempotency_keys SET created_at = created_at - interval '25 hours'"
    await database.execute(f"{age} WHERE key <> (SELECT min(key) FROM chassis.idempotency_keys)")
    assert await stored_answers.forget(database, older_than=timedelta(hours=24)) == 4
    assert await stored_answers.forget(database, older_than=timedelta(hours=24)) == 0


async def test_each_process_forgets_answers_also_after_an_outage(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "FORGET_SECONDS", 0.01)
    failures: list[int] = []
    forget = stored_answers.forget

    async def fail_first(*given: Any, **named: Any) -> int:
        if not failures:
            failures.append(1)
            raise OSError("an outage")
        return await forget(*given, **named)

    monkeypatch.setattr(stored_answers, "forget", fail_first)
    async with keyed_serving(keyed.make(database_url, idempotency_retention_hours=1)) as client:
        await post(client, "/things")
        await database.execute("UPDATE chassis.idempotency_keys SET created_at = now() - interval '61 minutes'")
        async with asyncio.timeout(60):
            while await database.fetch("SELECT pg_sleep(0.01) FROM chassis.idempotency_keys"):
                pass
    assert failures


def test_the_api_document_describes_the_key_of_each_post() -> None:
    service = dataclasses.replace(keyed.SERVICE, routers=[keyed.router], idempotency=IdempotencyKeys())
    paths = api(service).openapi()["paths"]
    created = paths["/v1/things"]["post"]
    (parameter,) = [each for each in created["parameters"] if each["name"] == "Idempotency-Key"]
    assert (parameter["in"], parameter["required"]) == ("header", False)
    assert "Idempotent-Replayed" in created["responses"]["201"]["headers"]
    described = {status: created["responses"][status]["description"] for status in ("400", "409", "422")}
    assert "`malformed_request`, `idempotency_key_invalid`" in described["400"]
    assert "`idempotency_key_in_use`" in described["409"]
    assert "`invalid_request`, `idempotency_key_reused`" in described["422"]
    assert "Retry-After" in created["responses"]["409"]["headers"]
    for operation in (paths["/v1/things"]["put"], paths["/v1/upload"]["post"]):
        assert "Idempotency-Key" not in str(operation)
