"""Checks of the behaviour of a container. They accept any image, because a test shows that a broken image fails."""

import asyncio
import contextlib
import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from uuid import uuid4

import httpx2
import nats
from nats.aio.msg import Msg

from tests.delivery.image.world import VERSION, World
from tests.support.containers import LIMIT_SECONDS, Container, run, started

INVOICE = {"number": "7", "customer_id": str(uuid4()), "total": {"amount": 1250, "currency": "EUR"}}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def refuses_to_start_with_a_missing_or_malformed_setting(world: World, image: str) -> None:
    secret = "hunter2-is-not-a-port"
    wrong = {
        "DATABASE_URL": ("serve", world.trusted.settings),
        "HTTP_PORT": ("serve", {**world.settings, "HTTP_PORT": secret}),
        "BROKER_URL": ("work", world.settings),
        "OIDC_AUDIENCE": ("serve", {n: it for n, it in world.settings.items() if n != "OIDC_AUDIENCE"}),
    }
    with ThreadPoolExecutor() as pool:
        runs = {
            name: pool.submit(run, world.engine, image, command, **given) for name, (command, given) in wrong.items()
        }
    for name, ended in runs.items():
        status, said = ended.result()
        assert status == 2, said
        assert name in said
        assert secret not in said
        assert {other for other in wrong if other in said} == {name}


def listens_on_the_address_of_the_settings(world: World, image: str) -> None:
    with (
        started(world.engine, image, **world.settings) as open_to_all,
        started(world.engine, image, **world.settings, HTTP_HOST="127.0.0.1") as kept_inside,
    ):
        for container, elsewhere in ((open_to_all, True), (kept_inside, False)):
            container.until_ready()
            try:
                httpx2.get(f"http://127.0.0.2:{container.port}/livez")
                reached = True
            except httpx2.ConnectError:
                reached = False
            assert reached is elsewhere


def migrates_by_command(world: World, image: str) -> None:
    url = world.database.empty()
    status, said = run(world.engine, image, "migrate", DATABASE_URL=url)
    assert status == 0, said
    with started(world.engine, image, **world.settings | {"DATABASE_URL": url}) as container:
        container.until_ready()
        url = f"{container.base}/v1/invoices"
        assert httpx2.post(url, json=INVOICE, headers=world.headers).status_code == 201
        assert httpx2.post(url, json=INVOICE).status_code == 401


def tells_the_truth_while_the_database_is_away(world: World, image: str) -> None:
    with started(world.engine, image, **world.settings) as container:
        container.until_ready()
        with world.database.away():
            ready, alive = container.get("/readyz"), container.get("/livez")
            assert ready is not None
            assert alive is not None
            assert (ready.status_code, alive.status_code) == (503, 200)
        container.until_ready()


class Load:
    """Clients that send requests, each on a new connection, until no process listens any more.

    A request that was sent after `promised_until`, which is after the drain, may fail.
    """

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._headers = {"content-type": "application/json", **headers}
        self.promised_until = math.inf
        self.answered = 0
        self.failed: list[str] = []
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        body = json.dumps(INVOICE)
        while not self._stop.is_set():
            sent = math.inf
            try:
                with contextlib.closing(HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
                    connection.request("POST", "/v1/invoices", body, self._headers)
                    # The time begins after the wait for a connection, which may take seconds on a busy machine.
                    sent = time.monotonic()
                    answer = connection.getresponse()
                    said = answer.read()
            except ConnectionRefusedError:  # a load balancer would send the request to another pod
                return
            except (OSError, HTTPException) as error:
                if sent < self.promised_until:
                    self.failed.append(repr(error))
            else:
                if answer.status != 201:
                    self.failed.append(said.decode())
                self.answered += 1


def finishes_accepted_requests_when_told_to_stop(world: World, image: str) -> None:
    with started(world.engine, image, **world.settings, DRAIN_SECONDS=1) as container:
        container.until_ready()
        with Load(container.port, world.headers) as load:
            container.until("under load", lambda: load.answered > 20 or load.failed)
            before, load.promised_until = load.answered, time.monotonic() + 1
            status = container.stop()
        assert load.failed == []
        assert load.answered > before
        assert status == 0


def logs_json_with_trace_ids(world: World, image: str) -> None:
    """Log JSON lines with trace ids, and by default no line for a request that succeeds."""
    logged = _after_one_request(world, image)
    assert logged
    assert not [line for line in logged if line["event"] == "request_finished"]


def logs_requests_if_a_setting_asks(world: World, image: str) -> None:
    (line,) = (
        one for one in _after_one_request(world, image, LOG_REQUESTS="true") if one["event"] == "request_finished"
    )
    assert (line["trace_id"], line["service"], line["status"]) == (TRACE, "billing", 201)


def logs_for_people_if_a_setting_asks(world: World, image: str) -> None:
    lines = _lines_after_one_request(world, image, LOG_FORMAT="console", LOG_REQUESTS="true")
    assert [line for line in lines if line.startswith("{")] == []
    assert [line for line in lines if "request_finished" in line and TRACE in line]


def _after_one_request(world: World, image: str, **settings: str) -> list[dict]:
    lines = _lines_after_one_request(world, image, **settings)
    assert [line for line in lines if not line.startswith("{")] == []
    return [json.loads(line) for line in lines]


def _lines_after_one_request(world: World, image: str, **settings: str) -> list[str]:
    """Return the lines of both streams, to the end of the process."""
    with started(world.engine, image, **world.settings, **settings) as container:
        container.until_ready()
        answer = httpx2.post(f"{container.base}/v1/invoices", json=INVOICE, headers=TRACEPARENT | world.headers)
        assert answer.status_code == 201
        assert container.stop() == 0
        return "".join(container.output()).splitlines()


def serves_and_works_as_the_same_build(world: World, image: str) -> None:
    """A change over HTTP in one container makes the other container publish an event."""
    with (
        started(world.engine, image, **world.settings) as serving,
        started(world.engine, image, "work", BROKER_URL=world.broker, **world.settings) as working,
    ):
        for each in (serving, working):
            each.until_ready()
            asked = each.get(f"/readyz?version={VERSION}")
            assert asked is not None
            assert asked.is_success
        message = asyncio.run(_issue(world, serving))
    assert message.headers is not None
    assert TRACE in message.headers["traceparent"]


async def _issue(world: World, serving: Container) -> Msg:
    """Issue an invoice, and return the event that follows from it."""
    client = await nats.connect(world.broker)
    try:
        heard = await client.subscribe("billing.>")
        await client.flush()
        async with httpx2.AsyncClient(base_url=serving.base, headers=TRACEPARENT | world.headers) as http:
            made = await http.post("/v1/invoices", json=INVOICE)
            issue = f"{made.headers['location']}/issue"
            assert (await http.post(issue, headers={"if-match": made.headers["etag"]})).status_code == 200
        return await heard.next_msg(LIMIT_SECONDS)
    finally:
        await client.close()


def says_whether_it_is_healthy(world: World, image: str) -> None:
    often = ("--health-interval", "1s", "--health-retries", "1")
    with started(world.engine, image, options=often, **world.settings) as container:

        def health() -> dict:
            return world.engine.inspect(container.id)["State"].get("Health", {"Status": "none", "Log": []})

        container.until("checked", lambda: health()["Status"] != "starting")
        assert health()["Status"] == "healthy"
        # The kernel still accepts connections for a stopped process, and nobody answers.
        world.engine.docker("kill", "--signal", "STOP", container.id)
        last = health()["Log"][-1]["Start"]

        def later() -> list[dict]:
            return [check for check in health()["Log"] if check["Start"] > last]

        # The first status may be older than the stop.
        container.until("checked", lambda: health()["Status"] == "unhealthy" or len(later()) > 1)
        assert health()["Status"] == "unhealthy"
        world.engine.docker("kill", "--signal", "CONT", container.id)
        container.until("healthy again", lambda: health()["Status"] == "healthy")


CHECKS = [
    refuses_to_start_with_a_missing_or_malformed_setting,
    listens_on_the_address_of_the_settings,
    migrates_by_command,
    tells_the_truth_while_the_database_is_away,
    finishes_accepted_requests_when_told_to_stop,
    logs_json_with_trace_ids,
    logs_requests_if_a_setting_asks,
    logs_for_people_if_a_setting_asks,
    serves_and_works_as_the_same_build,
    says_whether_it_is_healthy,
]
