"""Generate a service with Copier, start it, be its client; then a second one, and show one trace through both.

billing issues an invoice and announces it; notifications consumes the event. CI=1 in the environment: stop when everything was shown.
The exit status is 0 only if all of it happened.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from demo.otlp import OtlpReceiver, Span, tree
from demo.service import ROOT, DemoFailed, DemoService, Running

BOUNDARY = {"limited_by_monolith": "yes", "separate_team": "yes", "ready_for_consistency": "yes"}
BILLING = DemoService(
    "billing",
    {
        "chassis_parts": "[traces]",
        "description": "Invoices, from the first draft to the copy that is sent",
        "messaging_style": "events",
        **BOUNDARY,
    },
)
NOTIFICATIONS = DemoService(
    "notifications",
    {
        "description": "Tells customers what they should know",
        "aggregates": "Notification:\n  recipient: uuid\n  body: text\n",
        "messaging_style": "events",
        **BOUNDARY,
    },
    {"src/notifications/messaging/billing.py": Path(__file__).parent / "notifications" / "billing.py"},
)
REACTION_TIMEOUT_SECONDS = 60


def main() -> int:
    """Run the demo. Returns the exit status."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for kept in filter(None, [service.make_room() for service in (BILLING, NOTIFICATIONS)]):
            say(f"Kept your changed copy as {kept}")
        with step("Generating billing"):
            BILLING.generate()
        with step("Installing it"):
            BILLING.install()
        with ThreadPoolExecutor() as meanwhile, ExitStack() as stack:
            # The second service begins after the first, whose packages are in uv's cache by now.
            second = meanwhile.submit(make, NOTIFICATIONS)
            receiver = stack.enter_context(OtlpReceiver())
            billing = stack.enter_context(started(BILLING, receiver))
            client = stack.enter_context(client_of(billing))
            expect(client.get("/readyz"), 200)
            say(f"first 200 after {time.monotonic() - began:.1f} s")
            show_a_token(client, billing)
            issue(client, converse(client))
            with step("Generating and installing notifications, which began meanwhile"):
                second.result()
            # With a database of its own, and on billing's NATS.
            with started(NOTIFICATIONS, receiver, BROKER_URL=billing.broker) as notifications:
                with client_of(notifications) as listener:
                    listener.headers["Authorization"] = f"Bearer {notifications.token()}"
                    issued = issue(client, create(client, "2027-0002"))
                    show_reaction(listener)
                show_trace(receiver, issued)
                say(f"all shown after {time.monotonic() - began:.1f} s\n")
                if not os.environ.get("CI"):
                    stay(billing, notifications)
    except KeyboardInterrupt:
        print()
    except (DemoFailed, httpx2.HTTPError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def say(text: str) -> None:
    print(text, flush=True)


def make(service: DemoService) -> None:
    """Generate and install it as its team would."""
    service.generate()
    service.install()


@contextmanager
def step(title: str) -> Generator[None]:
    """Say what is being done, then how long it took."""
    print(f"{title} … ", end="", flush=True)
    began = time.monotonic()
    yield
    say(f"{time.monotonic() - began:.1f} s")


@contextmanager
def started(service: DemoService, receiver: OtlpReceiver, **settings: str) -> Generator[Running]:
    with ExitStack() as stack:
        with step("Starting PostgreSQL, NATS and the service; migrating" if not settings else "Starting it"):
            running = service.running(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, **settings)
            one = stack.enter_context(running)
        yield one


def client_of(service: Running) -> httpx2.Client:
    return httpx2.Client(base_url=service.base, timeout=30)


def show_a_token(client: httpx2.Client, billing: Running) -> None:
    """Show that a stranger is refused, and the caller is not refused from then on."""
    say("\nWho shows no access token is refused:")
    exchange(client, "GET", "/v1/invoices", 401)
    say(f"`make dev` has an issuer of its own. A token of {billing.token_command}, and the same request:")
    client.headers["Authorization"] = f"Bearer {billing.token()}"
    exchange(client, "GET", "/v1/invoices", 200)


def converse(client: httpx2.Client) -> httpx2.Response:
    """Be a client. Returns the answer that created the invoice."""
    say("\nAn invoice is created, read and listed:")
    created = create(client, "2027-0001")
    exchange(client, "GET", created.headers["Location"], 200)
    exchange(client, "GET", "/v1/invoices", 200)
    say("What is wrong is said in one form (RFC 9457), with a code that never changes:")
    exchange(client, "GET", "/v1/invoices/00000000-0000-0000-0000-000000000000", 404)
    exchange(
        client, "POST", "/v1/invoices", 422, json=draft("2027-0001") | {"total": {"amount": 12.5, "currency": "euro"}}
    )
    return created


def create(client: httpx2.Client, number: str) -> httpx2.Response:
    return exchange(client, "POST", "/v1/invoices", 201, json=draft(number))


def draft(number: str) -> dict[str, Any]:
    customer = "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"
    return {"number": number, "customer_id": customer, "total": {"amount": 1250, "currency": "EUR"}}


def issue(client: httpx2.Client, created: httpx2.Response) -> str:
    """Once; a second time is refused. Returns the trace id of the request that did it."""
    url = created.headers["Location"]
    say("It is issued, once:")
    issued = exchange(client, "POST", f"{url}/issue", 200, headers={"If-Match": created.headers["ETag"]})
    exchange(client, "POST", f"{url}/issue", 409, headers={"If-Match": "*"})
    return issued.headers["X-Request-Id"]


def exchange(client: httpx2.Client, method: str, path: str, status: int, **options: Any) -> httpx2.Response:
    """Send, show both sides, insist on the status."""
    response = client.request(method, path, **options)
    shown = {"Authorization": "Bearer …"} if "Authorization" in client.headers else {}
    headers = "".join(f"  {name}: {value}" for name, value in {**shown, **options.get("headers", {})}.items())
    say(f"\n  {method} {path}{headers}")
    if "json" in options:
        say(f"    {json.dumps(options['json'])}")
    say(f"  {response.status_code} {response.reason_phrase}")
    if response.content:
        say("".join(f"    {line}\n" for line in json.dumps(response.json(), indent=2).splitlines()))
    return expect(response, status)


def expect(response: httpx2.Response, status: int) -> httpx2.Response:
    if response.status_code != status:
        raise DemoFailed(f"{response.request.method} {response.url}: {response.status_code}, expected {status}")
    return response


def show_reaction(client: httpx2.Client) -> None:
    """Wait until notifications has heard of both invoices, and show what it did."""
    say(
        "billing said so in events. notifications, with a database of its own, has heard them, the one before its birth too:"
    )
    deadline = time.monotonic() + REACTION_TIMEOUT_SECONDS
    while len(client.get("/v1/notifications").json()["items"]) < 2:
        if time.monotonic() > deadline:
            raise DemoFailed(f"notifications did not react within {REACTION_TIMEOUT_SECONDS} s")
        time.sleep(0.05)
    exchange(client, "GET", "/v1/notifications", 200)


def show_trace(receiver: OtlpReceiver, trace_id: str) -> None:
    """Show one tree from the request to the reaction. Fail with the names of the missing spans."""
    wanted = {
        "POST /v1/invoices/{invoice_id}/issue",
        "INSERT chassis.outbox",
        "send billing.invoice-issued.v1",
        "process billing.invoice-issued.v1",
        "INSERT notifications.notifications",
    }
    deadline = time.monotonic() + REACTION_TIMEOUT_SECONDS
    spans: list[Span] = []
    while missing := wanted - {span.name for span in spans}:
        if time.monotonic() > deadline:
            raise DemoFailed(f"trace {trace_id} has no span {', '.join(sorted(missing))}")
        spans = receiver.wait_for(trace_id, count=len(spans) + 1, timeout=1)
    if len(roots(spans)) != 1:
        raise DemoFailed(f"trace {trace_id} has the roots {', '.join(roots(spans))}, expected one")
    say(f"The request that issued it and all that followed, as one trace ({trace_id}):\n")
    say("".join(f"  {line}\n" for line in tree(spans).splitlines()))


def roots(spans: Iterable[Span]) -> list[str]:
    known = {span.span_id for span in spans}
    return [span.name for span in spans if span.parent_id not in known]


def stay(billing: Running, notifications: Running) -> None:
    say("Both go on until Ctrl-C:\n")
    for service, one in ((BILLING, billing), (NOTIFICATIONS, notifications)):
        say(f"  {service.name:<14} {one.base}/docs  {service.folder.relative_to(ROOT)}")
    say("")
    while (ended := next((one for one in (billing, notifications) if one.process.poll() is not None), None)) is None:
        time.sleep(0.2)
    raise DemoFailed(f"a service ended with status {ended.process.returncode}")


if __name__ == "__main__":
    raise SystemExit(main())
