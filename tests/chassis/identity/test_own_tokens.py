"""The tokens of this service in its calls: which token, for whom, and what happens without one."""

import asyncio
import json
import threading
import time
from base64 import b64decode
from collections.abc import AsyncGenerator, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import httpx2
import pytest
from chassis.client import service_client
from chassis.dev.issuer import Issuer as DevIssuer
from chassis.identity import OidcSettings, issuer_documents, own_tokens
from chassis.identity.own_tokens import Credentials, OwnToken, TokenUnavailable
from structlog.testing import capture_logs

from tests.chassis.guarded import SETTINGS, make
from tests.chassis.issuing import ISSUER, Issuer
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider
from tests.support.waiting import until

SECRET = "a secret: with/special characters ü"


class TokenEndpoint:
    """An issuer whose token endpoint answers as the test wants. `asked` holds the client, the secret and the form of each request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.status, self.changed = 200, {}
        self.pause_seconds = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def credentials(self, secret: str = SECRET, clock: Any = time.monotonic, **form: str) -> Credentials:
        return Credentials(self.url, "billing", secret, form, clock=clock)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, {"issuer": endpoint.url, "token_endpoint": f"{endpoint.url}/token"})

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                basic = b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
                client, secret = map(unquote_plus, basic.split(":"))
                endpoint.asked.append((client, secret, {name: values[0] for name, values in form.items()}))
                time.sleep(endpoint.pause_seconds)
                token = {"access_token": f"token-{len(endpoint.asked)}", "token_type": "Bearer", "expires_in": 300}
                self._answer(endpoint.status, {**token, **endpoint.changed})

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Write nothing into the output of the tests."""

        return Handler


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer on a busy machine may take its time."""
    monkeypatch.setattr(issuer_documents, "TIMEOUT_SECONDS", 60)


@pytest.fixture
def endpoint() -> Generator[TokenEndpoint]:
    endpoint = TokenEndpoint()
    yield endpoint
    endpoint.close()


def settings(**changed: Any) -> OidcSettings:
    return OidcSettings.model_validate({**SETTINGS, **changed})


async def sent(auth: httpx2.Auth | None, url: str = "/v1/customers", **answers: httpx2.Response) -> list[str | None]:
    """Call a neighbour, and return the tokens that arrive. `answers` maps a host to its answer."""
    tokens = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        tokens.append(request.headers.get("Authorization"))
        return answers.get(request.url.host, httpx2.Response(204))

    transport = httpx2.MockTransport(answer)
    async with service_client("http://customers", transport=transport, auth=auth) as client:
        await client.get(url, follow_redirects=True)
    return tokens


async def test_a_call_without_settings_has_no_token() -> None:
    assert settings().token_for("customers") is None
    assert await sent(None) == [None]


async def test_a_token_of_kubernetes_is_read_again_for_each_call(tmp_path: Path) -> None:
    auth = settings(oidc_token_folder=str(tmp_path)).token_for("customers")
    for token in ("first", "second"):
        (tmp_path / "customers").write_text(f"{token}\n")
        assert await sent(auth) == [f"Bearer {token}"]


@pytest.mark.parametrize("content", [None, b"", b"\n", b"a\nb", b"\xff", "ü".encode(), b"x" * 20_000])
async def test_a_file_without_a_token_is_named_and_nothing_is_sent(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "customers").write_bytes(content)
    with pytest.raises(TokenUnavailable, match=f"{tmp_path}/customers holds no token .*docs/identity.md"):
        await sent(settings(oidc_token_folder=tmp_path).token_for("customers"))


@pytest.mark.parametrize("audience", ["https://customers", "../customers", "..", ""])
def test_an_audience_that_is_no_name_of_a_file_is_refused(tmp_path: Path, audience: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a file in OIDC_TOKEN_FOLDER"):
        settings(oidc_token_folder=tmp_path).token_for(audience)


async def test_only_the_neighbour_receives_the_token() -> None:
    async def token(_: str) -> str:
        return "secret"

    auth = OwnToken(token)
    assert await sent(auth) == ["Bearer secret"]
    assert await sent(auth, "http://customers/v1/customers") == ["Bearer secret"]
    for other in ("http://other/", "https://customers/", "http://customers:8000/", "http://customers.other/"):
        assert await sent(auth, other) == [None]
        moved = httpx2.Response(307, headers={"Location": other})
        if httpx2.URL(other).host != "customers":
            assert await sent(auth, customers=moved) == ["Bearer secret", None]


async def test_a_token_by_credentials_is_for_the_audience_and_kept_until_shortly_before_its_end(
    endpoint: TokenEndpoint,
) -> None:
    now = 1000.0
    credentials = endpoint.credentials(clock=lambda: now, audience="customers", scope="customers:read")
    assert [await credentials.token() for _ in range(3)] == 3 * ["token-1"]
    form = {"grant_type": "client_credentials", "audience": "customers", "scope": "customers:read"}
    assert endpoint.asked == [("billing", SECRET, form)]
    now += 300 - own_tokens.SPARE_SECONDS
    await credentials.token()
    await renewed(credentials)
    assert await credentials.token() == "token-2"


async def renewed(credentials: Credentials) -> None:
    await until(lambda: credentials._fetching is None)


async def test_an_issuer_that_hangs_costs_no_time_while_the_known_token_is_valid(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    credentials = endpoint.credentials(clock=lambda: now)
    await credentials.token()
    now += 299
    answered = asyncio.Event()
    monkeypatch.setattr(issuer_documents, "read", lambda *_, **__: answered.wait())
    async with asyncio.timeout(10):
        assert [await credentials.token() for _ in range(3)] == 3 * ["token-1"]
    answered.set()
    await renewed(credentials)


class Neighbour:
    """A neighbour that accepts some tokens. `arrived` holds the token of each request."""

    def __init__(self, *accepted: str) -> None:
        self.accepted, self.arrived = accepted, list[str]()

    async def call(self, auth: httpx2.Auth, **options: Any) -> int:
        async with service_client(
            "http://customers", transport=httpx2.MockTransport(self._answer), auth=auth
        ) as client:
            return (await client.post("/v1/customers", **options)).status_code

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.arrived.append(request.headers["Authorization"].removeprefix("Bearer "))
        return httpx2.Response(200 if self.arrived[-1] in self.accepted else 401)


async def test_a_refused_token_is_replaced_by_one_fetch_for_all_calls(endpoint: TokenEndpoint) -> None:
    now = 1000.0
    credentials = endpoint.credentials(clock=lambda: now)
    auth, neighbour = OwnToken(credentials.token), Neighbour("token-1")
    assert await neighbour.call(auth) == 200
    neighbour.accepted = ("token-2",)
    now += own_tokens.PAUSE_SECONDS
    assert await asyncio.gather(*(neighbour.call(auth, json={"name": "A"}) for _ in range(20))) == 20 * [200]
    assert len(endpoint.asked) == 2
    assert await credentials.token("token-1") == "token-2", "a late refusal of the old token"


async def test_a_neighbour_that_refuses_every_token_gets_two_requests_and_the_issuer_is_left_in_peace(
    endpoint: TokenEndpoint,
) -> None:
    now = 1000.0
    auth, neighbour = OwnToken(endpoint.credentials(clock=lambda: now).token), Neighbour()
    assert await neighbour.call(auth) == 401
    assert neighbour.arrived == ["token-1"], "a token that is new is not replaced"
    now += own_tokens.PAUSE_SECONDS
    assert [await neighbour.call(auth) for _ in range(3)] == 3 * [401]
    assert neighbour.arrived[1:] == ["token-1", "token-2", "token-2", "token-2"]
    assert len(endpoint.asked) == 2


async def test_the_refusal_stays_if_the_issuer_gives_no_other_token(endpoint: TokenEndpoint) -> None:
    now = 1000.0
    auth, neighbour = OwnToken(endpoint.credentials(clock=lambda: now).token), Neighbour()
    await neighbour.call(auth)
    endpoint.status = 503
    now += own_tokens.PAUSE_SECONDS
    assert [await neighbour.call(auth) for _ in range(3)] == 3 * [401]
    assert neighbour.arrived == 4 * ["token-1"]
    assert len(endpoint.asked) == 2


async def test_a_file_that_kubernetes_has_replaced_meanwhile_is_read_again(tmp_path: Path) -> None:
    class Replacing(Neighbour):
        def _answer(self, request: httpx2.Request) -> httpx2.Response:
            answer = super()._answer(request)
            (tmp_path / "customers").write_text("new")
            return answer

    (tmp_path / "customers").write_text("old")
    neighbour = Replacing("new")
    assert await neighbour.call(own_tokens.from_file(tmp_path / "customers")) == 200
    assert neighbour.arrived == ["old", "new"]


async def test_a_body_that_is_a_stream_is_not_sent_twice_and_the_next_call_has_the_new_token() -> None:
    tokens = iter(["old", "new", "new"])

    async def obtain(_: str) -> str:
        return next(tokens)

    async def body() -> AsyncGenerator[bytes]:
        yield b"x"

    neighbour = Neighbour("new")
    assert [await neighbour.call(OwnToken(obtain), content=body()) for _ in range(2)] == [401, 200]
    assert neighbour.arrived == ["old", "new"]


async def test_a_thousand_calls_share_one_fetch_and_a_cancelled_call_does_not_end_the_fetch(
    endpoint: TokenEndpoint,
) -> None:
    endpoint.pause_seconds = 0.3
    credentials = endpoint.credentials()
    first = asyncio.create_task(credentials.token())
    others = [asyncio.create_task(credentials.token()) for _ in range(1000)]
    await until(lambda: endpoint.asked)
    first.cancel()
    assert set(await asyncio.gather(*others)) == {"token-1"}
    assert len(endpoint.asked) == 1


def test_all_clients_of_a_process_share_a_token(endpoint: TokenEndpoint) -> None:
    one, two = (
        settings(oidc_client_id="billing", oidc_client_secret=SECRET).token_for("customers", scope="a")
        for _ in range(2)
    )
    assert one is two


async def test_a_known_token_is_used_while_the_issuer_is_down_and_the_issuer_is_not_flooded(
    endpoint: TokenEndpoint,
) -> None:
    now = 1000.0
    credentials = endpoint.credentials(clock=lambda: now)
    await credentials.token()
    endpoint.status = 503
    now += 299
    assert [await credentials.token() for _ in range(3)] == 3 * ["token-1"]
    await renewed(credentials)
    assert [await credentials.token() for _ in range(3)] == 3 * ["token-1"]
    assert len(endpoint.asked) == 2
    now += 2
    with pytest.raises(TokenUnavailable, match=r"/token answers 503"):
        await credentials.token()
    endpoint.status = 200
    now += own_tokens.FIRST_PAUSE_SECONDS
    assert await credentials.token() == "token-4"


@pytest.mark.parametrize(
    ("status", "changed", "reason"),
    [
        (401, {"error": "invalid_client", "error_description": "\x1b[2J"}, "/token answers 401 invalid_client"),
        (400, {"error": "no code\n"}, r"/token answers 400\."),
        (302, {}, "/token answers 302"),
        (200, {"access_token": None}, "gives the client billing no token"),
        (200, {"access_token": "a\nb"}, "this is no access token"),
        (200, {"expires_in": 0}, "the token has expired already"),
        (200, {"expires_in": "soon"}, "invalid literal"),
        (200, {"expires_in": float("nan")}, "NaN"),
        (200, {"filler": 300_000 * "x"}, "has more than 262144 bytes"),
    ],
)
async def test_a_refusal_of_the_token_endpoint_is_a_clear_error_without_the_secret(
    endpoint: TokenEndpoint, status: int, changed: dict[str, Any], reason: str
) -> None:
    endpoint.status, endpoint.changed = status, changed
    with capture_logs() as lines, pytest.raises(TokenUnavailable, match=reason) as refused:
        await sent(OwnToken(endpoint.credentials().token))
    text = str(refused.value)
    assert text.startswith(f"{endpoint.url} gives the client billing no token: ")
    assert text.endswith("Check OIDC_CLIENT_ID and OIDC_CLIENT_SECRET, and whether the pods reach the issuer")
    assert SECRET not in f"{text}{lines}"
    assert text.isprintable()


async def test_an_issuer_that_does_not_answer_costs_two_seconds(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_documents, "TIMEOUT_SECONDS", 0.05)
    endpoint.pause_seconds = 0.5
    with pytest.raises(TokenUnavailable, match="TimeoutError"):
        await endpoint.credentials().token()


async def test_a_service_gets_into_another_service_by_its_own_token() -> None:
    with DevIssuer("tiny").running() as issuer:
        trusted = {**issuer.settings, "oidc_client_id": "billing", "oidc_client_secret": SECRET}
        auth = settings(**trusted).token_for("tiny", scope="things:read", subject="billing")
        transport = httpx2.ASGITransport(make(**issuer.settings))
        async with service_client("http://tiny", transport=transport, auth=auth) as tiny:
            answer = await tiny.get("/v1/things")
    assert (answer.status_code, answer.json()) == (200, ["billing"])


async def test_a_real_provider_gives_tokens_by_client_credentials(provider: Provider) -> None:
    audience = "https://tiny.example"
    trusted = {"oidc_issuer": provider.url, "oidc_audience": audience}
    client = {"oidc_client_id": CLIENT_ID, "oidc_client_secret": CLIENT_SECRET}
    auth = settings(**trusted, **client).token_for(audience, resource=audience, scope="things:read")
    transport = httpx2.ASGITransport(make(**trusted))
    async with service_client("http://tiny", transport=transport, auth=auth) as tiny:
        assert (await tiny.get("/v1/things")).json() == [CLIENT_ID]
    wrong = settings(**trusted, **client | {"oidc_client_secret": "wrong"}).token_for(audience, resource=audience)
    with pytest.raises(TokenUnavailable, match="answers 401 invalid_client"):
        await sent(wrong)


SUBJECT = "system:serviceaccount:billing-production:billing"


async def test_a_grant_gives_scopes_to_the_subject_of_one_issuer() -> None:
    cluster, people = Issuer("https://cluster.example"), Issuer()
    grants = settings(
        oidc_issuer=f"{ISSUER} {cluster.name}",
        oidc_grants=f" {cluster.name} {SUBJECT} things:read things:write; {cluster.name}  other things:admin;",
    ).grants
    for issuer, subject, scopes in (
        (cluster, SUBJECT, {"things:read", "things:write"}),
        (cluster, "other", {"things:admin"}),
        (cluster, "nobody", set()),
        (people, SUBJECT, set()),
    ):
        caller = await issuer.tokens(grants=grants).caller(issuer.token(sub=subject, scope=None))
        assert (caller.subject, caller.scopes) == (subject, scopes)
    granted = await cluster.tokens(grants=grants).caller(cluster.token(sub="other", scope="things:list"))
    assert granted.scopes == {"things:admin", "things:list"}


async def test_a_route_is_open_to_a_subject_with_a_grant() -> None:
    with DevIssuer("tiny").running() as issuer:
        app = make(**issuer.settings, oidc_grants=f"{issuer.url} {SUBJECT} things:read")
        for subject, status in ((SUBJECT, 200), ("other", 403)):
            headers = {"Authorization": f"Bearer {issuer.token(subject)}"}
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://tiny") as client:
                assert (await client.get("/v1/things", headers=headers)).status_code == status


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"oidc_grants": SUBJECT}, "grant 1 of OIDC_GRANTS must be an issuer of OIDC_ISSUER, a subject and scopes"),
        ({"oidc_grants": f"{ISSUER} {SUBJECT}"}, "grant 1 of OIDC_GRANTS"),
        ({"oidc_grants": f"{ISSUER} {SUBJECT} a; https://other.example {SUBJECT} a"}, "grant 2 of OIDC_GRANTS"),
        ({"oidc_grants": f'{ISSUER} {SUBJECT} "a"'}, "grant 1 of OIDC_GRANTS"),
        ({"oidc_grants": f"{ISSUER} {'x' * 256} a"}, "grant 1 of OIDC_GRANTS"),
        ({"oidc_grants": "x" * 17_000}, "at most 16384 characters"),
        ({"oidc_client_id": "billing"}, "OIDC_CLIENT_ID and OIDC_CLIENT_SECRET belong together"),
        ({"oidc_client_secret": SECRET}, "OIDC_CLIENT_ID and OIDC_CLIENT_SECRET belong together"),
        (
            {"oidc_client_id": "billing", "oidc_client_secret": SECRET, "oidc_token_folder": "/tokens"},
            "OIDC_TOKEN_FOLDER and OIDC_CLIENT_ID are two ways to a token: set one of them",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(changed: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        settings(**changed)


def test_the_secret_travels_encrypted_where_encryption_is_required(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    encrypted = {
        "database_url": f"postgresql://user@host/db?sslmode=verify-full&sslrootcert={tmp_path}/ca.pem",
        "require_tls": True,
        "oidc_jwks_url": "https://issuer.example/keys",
    }
    client = {"oidc_client_id": "billing", "oidc_client_secret": SECRET}
    assert settings(**encrypted, **client, oidc_issuer="https://issuer.example").token_for("customers")
    assert settings(**encrypted, oidc_issuer="http://issuer.example").token_for("customers") is None
    with pytest.raises(ValueError, match=r"the issuer that reads OIDC_CLIENT_SECRET needs an https:// URL"):
        settings(**encrypted, **client, oidc_issuer="http://issuer.example")
