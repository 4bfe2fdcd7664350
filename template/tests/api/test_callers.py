"""Every route refuses strangers, callers without its scopes, and tokens for another service."""

from chassis.dev.issuer import Client


async def test_every_route_refuses_a_request_without_token(client: Client) -> None:
    assert client.guarded_routes, "every route is public"
    for method, url, _ in client.guarded_routes:
        response = await client.without_token().request(method, url)
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated"), f"{method} {url}"


async def test_every_route_refuses_a_caller_who_lacks_one_scope(client: Client) -> None:
    for method, url, scopes in client.guarded_routes:
        for missing in scopes:
            response = await client.as_("user-17", scopes=scopes - {missing}).request(method, url)
            assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope"), f"{method} {url}"


async def test_every_route_refuses_a_token_for_another_service(client: Client) -> None:
    for method, url, scopes in client.guarded_routes:
        response = await client.as_("user-17", scopes=scopes, aud="another-service").request(method, url)
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated"), f"{method} {url}"
