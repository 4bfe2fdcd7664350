"""The issuer of `make dev` and of tests: its tokens are verified by its published keys, and nothing else trusts these tokens."""

import base64
import contextlib
import dataclasses
import json
import socket
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from chassis.application import application
from chassis.commands import main
from chassis.dev import server, servers_file
from chassis.dev.issuer import PATH, Client, Issuer
from chassis.dev.token_server import TokenServer
from chassis.identity import Oidc, OidcSettings, caller, public, scopes
from chassis.identity.keys import Keys, fetch_from
from chassis.identity.own_tokens import Credentials
from chassis.identity.tokens import Refused, Tokens
from chassis.service import Service
from chassis.settings import read
from fastapi import APIRouter

from tests.chassis.tiny.main import SERVICE

router = APIRouter(prefix="/v1")


@router.get("/things/{thing_id}")
@scopes("things:read")
async def get_thing(thing_id: str) -> str:
    return f"{thing_id} {caller().subject}"


@router.post("/things")
@scopes("things:write")
async def create_thing() -> str:
    return "created"


@router.get("/prices")
@public("the price list is on our website")
async def list_prices() -> str:
    return "prices"


@pytest.fixture
def issuer() -> Generator[Issuer]:
    with Issuer("tiny").running() as issuer:
        yield issuer


@pytest.fixture
def guarded() -> Service:
    return dataclasses.replace(SERVICE, routers=[router], auth=Oidc(), settings=OidcSettings)


@pytest.fixture
def client(issuer: Issuer, guarded: Service) -> Client:
    """A client of a service that fetches the keys over HTTP."""
    settings = OidcSettings.model_validate({"database_url": "postgresql://localhost/unused", **issuer.settings})
    return issuer.client(application(guarded, settings))


async def test_a_service_that_discovers_the_issuer_accepts_its_tokens(client: Client) -> None:
    assert (await client.get("/v1/things/1")).json() == "1 tester"
    assert (await client.as_("user-17", scopes=["things:read"]).get("/v1/things/1")).json() == "1 user-17"


async def test_another_caller_has_only_the_given_scopes(client: Client) -> None:
    reader = client.as_("user-17", scopes=["things:read"])
    assert (await reader.post("/v1/things")).status_code == 403
    assert (await client.post("/v1/things")).status_code == 200
    assert (await client.as_("user-17", scopes=["things:write"], aud="other").post("/v1/things")).status_code == 401
    assert (await client.without_token().post("/v1/things")).status_code == 401


def test_the_guarded_routes_are_listed_with_their_scopes(client: Client) -> None:
    found = {(method, url): scopes for method, url, scopes in client.guarded_routes}
    assert found == {
        ("GET", "/v1/things/00000000-0000-0000-0000-000000000001"): {"things:read"},
        ("POST", "/v1/things"): {"things:write"},
    }


async def test_keys_at_a_url_of_their_own_need_no_discovery(issuer: Issuer) -> None:
    keys = Keys("https://name.in.the.browser", fetch_from("https://name.in.the.browser", f"{issuer.url}/keys"))
    verifier = Tokens({"https://name.in.the.browser": keys}, "tiny")
    assert (await verifier.caller(issuer.token(iss="https://name.in.the.browser").encode())).subject == "developer"


async def test_the_discovery_document_of_another_issuer_is_not_believed(issuer: Issuer) -> None:
    other = f"{issuer.url}/"  # this URL leads to the same document, which names the issuer without the slash
    verifier = Tokens({other: Keys(other, fetch_from(other, None))}, "tiny")
    with pytest.raises(Refused, match="keys_unavailable"):
        await verifier.caller(issuer.token(iss=other).encode())


async def test_tokens_of_an_issuer_that_ran_before_are_refused(client: Client) -> None:
    with Issuer("tiny").running() as before:
        old = before.token(scopes=["things:read"], iss=client.issuer.url)
    answer = await client.get("/v1/things/1", headers={"Authorization": f"Bearer {old}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("headers", [{"Host": "attacker.example"}, {"Origin": "http://127.0.0.1:8000"}], ids=str)
def test_a_page_in_a_browser_obtains_no_token(issuer: Issuer, headers: dict[str, str]) -> None:
    with httpx2.Client(trust_env=False) as client:
        assert client.post(f"{issuer.url}/token", data={"scope": "a"}, headers=headers).status_code == 404
        assert client.post(f"{issuer.url}/token", data={"scope": "a"}).status_code == 200
        assert client.get(f"{issuer.url}/token").status_code == 404
        assert client.get(f"{issuer.url}/other").status_code == 404


@pytest.mark.parametrize("length", ["-1", "x", "9" * 5000])
def test_a_length_that_is_no_length_is_answered(
    issuer: Issuer, length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = urlsplit(issuer.url)
    with socket.create_connection((str(url.hostname), url.port or 0), timeout=60) as connection:
        connection.sendall(
            f"POST {url.path}/token HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {length}\r\n\r\n".encode()
        )
        assert b" 200 OK" in connection.recv(100)
    assert capsys.readouterr().err == ""


async def test_a_client_obtains_a_token_for_another_audience_with_the_scopes_of_that_audience() -> None:
    scopes = {"customers": ["customers:read", "customers:write"]}
    with TokenServer("", path="/shared", scopes=lambda audience, _: scopes.get(audience, [])).running() as server:
        found = claims(await Credentials(server.url, "orders", "se:cret", {"audience": "customers"}).token())
        narrow = await Credentials(server.url, "orders", "s", {"audience": "customers", "scope": "a"}).token()
        verifier = Tokens({server.url: Keys(server.url, fetch_from(server.url, None))}, "customers")
        assert (await verifier.caller(narrow.encode())).scopes == {"a"}
    assert [found[name] for name in ("sub", "client_id", "aud", "scope")] == [
        "orders",
        "orders",
        "customers",
        "customers:read customers:write",
    ]


def claims(token: str) -> dict[str, object]:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "OIDC_ISSUER", "OIDC_AUDIENCE"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores the earlier state, whatever the test sets
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("folder")
def test_the_command_prints_a_token_of_make_dev(
    issuer: Issuer, guarded: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    servers_file.write({"OIDC_ISSUER": issuer.url})
    assert main(guarded, ["token"]) == 0
    everything = claims(capsys.readouterr().out)
    assert (everything["sub"], everything["scope"], everything["aud"]) == (
        "developer",
        "things:read things:write",
        "tiny",
    )
    assert main(guarded, ["token", "--scope", "a", "--scope", "b", "--subject", "user-17"]) == 0
    chosen = claims(capsys.readouterr().out)
    assert (chosen["sub"], chosen["scope"]) == ("user-17", "a b")


@pytest.mark.usefixtures("folder")
def test_the_command_names_an_issuer_that_has_ended(
    guarded: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ended:
        port = ended.getsockname()[1]
    monkeypatch.setenv("OIDC_ISSUER", f"http://127.0.0.1:{port}/development-issuer")
    assert main(guarded, ["token"]) == 2
    assert f"OIDC_ISSUER: http://127.0.0.1:{port}/development-issuer does not answer" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_the_command_names_the_remedy_without_the_issuer_of_make_dev(
    guarded: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OIDC_ISSUER", "https://issuer.example")
    assert main(guarded, ["token"]) == 2
    assert "Start `make dev` without OIDC_ISSUER in another terminal" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
async def test_two_services_of_make_dev_call_each_other_with_tokens_of_one_issuer(
    guarded: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as stack:
        first = server.trusted_issuer(dataclasses.replace(guarded, name="first"), stack)
        monkeypatch.delenv("OIDC_AUDIENCE")
        monkeypatch.setenv("OIDC_ISSUER", first["OIDC_ISSUER"])
        assert server.trusted_issuer(guarded, stack) == {}
        assert main(guarded, ["token"]) == 0
        assert claims(capsys.readouterr().out)["aud"] == "tiny"
        for name, value in {
            "DATABASE_URL": "postgresql:///x",
            "OIDC_CLIENT_ID": "a",
            "OIDC_CLIENT_SECRET": "b",
        }.items():
            monkeypatch.setenv(name, value)
        settings = read(OidcSettings)
        transport = httpx2.ASGITransport(application(guarded, settings))
        own = settings.token_for("tiny", scope="things:read")
        async with httpx2.AsyncClient(transport=transport, base_url="http://tiny", auth=own) as client:
            assert (await client.get("/v1/things/a")).text == '"a a"'


def test_a_service_without_identity_has_no_such_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(SERVICE, ["token"])
    assert "invalid choice: 'token'" in capsys.readouterr().err


def test_serve_refuses_the_issuer_of_make_dev(
    guarded: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {
        "DATABASE_URL": "postgresql://localhost/x",
        "OIDC_ISSUER": f"http://127.0.0.1:1{PATH}",
        "OIDC_AUDIENCE": "tiny",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert main(guarded, ["serve"]) == 2
    assert "is the issuer of `make dev`, from which everybody obtains any token" in capsys.readouterr().err
