"""Generate a service with Copier, start it, be its client; then run a product of five, and show one trace through all.

CI=1 in the environment: stop when everything was shown. The exit status is 0 only if all of it happened.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from demo.ahead import Ahead
from demo.service import DemoFailed, DemoService, Running
from demo.shop import Making, Product, current, running
from tests.support.leftovers import clean_up_after_this_process

BILLING = DemoService("billing", Path(__file__).with_name("billing.yml"))
CUSTOMER = "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"
CHECKOUT = {"customer_id": CUSTOMER, "lines": [{"sku": "teapot", "quantity": 2}]}
REACTION_TIMEOUT_SECONDS = 60
STAYS = "All five go on until Ctrl-C"

LEAVES = (
    "process payments.payment-charged.v1",
    "process notifications.deliver-notification.v1",
    "send notifications.notification-sent.v1",
)
"""The last spans of the trace's branches. A trace with one root, these spans and ADVANCES lacks no span of a service."""

ADVANCES = 3
"""How many jobs advance the saga: for its start, for the answer of payments, and for the order that is placed."""

LEFT_OUT = re.compile(r"\s*(SELECT|DELETE|SAVEPOINT|RELEASE|\w+ chassis\.(inbox|idempotency_keys))\b")
SPAN = re.compile(r"(.*?\S +\S+ +[\d.]+ ms)\b")


def main() -> int:
    """Run the demo. Returns the exit status."""
    began = time.monotonic()
    clean_up_after_this_process()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        if kept := BILLING.make_room():
            say(f"Kept your changed copy as {kept}")
        with Ahead(BILLING) as ahead:
            with step("Generating billing; installing its packages and making its database meanwhile"):
                BILLING.generate()
            with step("Installing it"):
                ahead.wait()
                BILLING.sync()
        with ExitStack() as until_the_end:
            completing = until_the_end.enter_context(ThreadPoolExecutor()).submit(BILLING.complete)
            with started() as billing, client_of(billing) as client:
                expect(client.get("/readyz"), 200)
                say(f"first 200 after {time.monotonic() - began:.1f} s")
                completing.result()
                # The product begins after the first service, whose packages are in uv's cache by now.
                making = until_the_end.enter_context(Making())
                show_billing(client, billing)
            with step("Generating and installing a product of five services, which began meanwhile"):
                making.wait()
            process = until_the_end.enter_context(running())
            product = current()
            show_product(product)
            say(f"all shown after {time.monotonic() - began:.1f} s\n")
            if not os.environ.get("CI"):
                say(f"{STAYS}. Their page: {product.page}\n")
                process.wait()
                raise DemoFailed(f"`fleet up` ended with status {process.returncode}")
    except KeyboardInterrupt:
        print()
    except (DemoFailed, httpx2.HTTPError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def step(title: str) -> Generator[None]:
    """Say what is being done, then how long it took."""
    print(f"{title} … ", end="", flush=True)
    began = time.monotonic()
    yield
    say(f"{time.monotonic() - began:.1f} s")


@contextmanager
def started() -> Generator[Running]:
    with ExitStack() as stack:
        with step("Starting PostgreSQL, NATS and the service; migrating"):
            billing = stack.enter_context(BILLING.running())
        yield billing


def client_of(service: Running) -> httpx2.Client:
    return httpx2.Client(base_url=service.base, timeout=30)


def show_billing(client: httpx2.Client, billing: Running) -> None:
    say("\nWho shows no access token is refused:")
    exchange(client, "GET", "/v1/invoices", 401)
    say(f"`make dev` has an issuer of its own. A token of {billing.token_command}, and the same request:")
    client.headers["Authorization"] = f"Bearer {billing.token()}"
    exchange(client, "GET", "/v1/invoices", 200)
    issue(client, converse(client))


def converse(client: httpx2.Client) -> httpx2.Response:
    """Create, read and list an invoice, and show refusals. Return the answer that created the invoice."""
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
    return {"number": number, "customer_id": CUSTOMER, "total": {"amount": 1250, "currency": "EUR"}}


def issue(client: httpx2.Client, created: httpx2.Response) -> None:
    """Issue the invoice, and show that a second attempt is refused."""
    url = created.headers["Location"]
    say("It is issued, once:")
    exchange(client, "POST", f"{url}/issue", 200, headers={"If-Match": created.headers["ETag"]})
    exchange(client, "POST", f"{url}/issue", 409, headers={"If-Match": "*"})


def exchange(client: httpx2.Client, method: str, path: str, status: int, **options: Any) -> httpx2.Response:
    """Send a request, show the request and the answer, and check the status of the answer."""
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


def show_product(product: Product) -> None:
    """Buy something, show what followed, and buy again while a service is stopped."""
    with product.client("storefront") as shop, product.client("inventory") as stock:
        teapot = {"sku": "teapot", "name": "Teapot", "price": {"amount": 1950, "currency": "EUR"}}
        expect(shop.post("/v1/products", json=teapot), 201)
        expect(stock.post("/v1/stock-items", json={"sku": "teapot", "available": 10}), 201)
        say("\nThe shop sells a teapot. A customer buys two:")
        bought = exchange(shop, "POST", "/v1/checkouts", 202, json=CHECKOUT)
        say("orders had payments charge the card, and placed the order. inventory reserved the teapots:")
        show_notification(product, bought.json()["order_id"])
        show_trace(product, bought.headers["X-Request-Id"])
        say("payments is stopped. The shop sells all the same, and the order waits until it is paid for:")
        act(product, "payments", "stop", until="stopped")
        waiting = exchange(shop, "POST", "/v1/checkouts", 202, json=CHECKOUT)
        say("payments is started again:")
        act(product, "payments", "start", until="ready")
        show_notification(product, waiting.json()["order_id"])
        say("orders is stopped. The shop says so, and when to ask again:")
        act(product, "orders", "stop", until="stopped")
        exchange(shop, "POST", "/v1/checkouts", 503, json=CHECKOUT)
        act(product, "orders", "start", until="ready")


def show_notification(product: Product, order_id: str) -> None:
    with product.client("notifications") as client:
        path = f"/v1/notifications/{order_id}"
        wait_for("notification", lambda: client.get(path).json().get("status") == "sent")
        exchange(client, "GET", path, 200)


def show_trace(product: Product, trace_id: str) -> None:
    """Show the trace from the request to the reaction as one tree, without the spans that only read."""
    wait_for("trace", lambda: is_whole(product.trace(trace_id)))
    lines = [found[1] for line in product.trace(trace_id) if not LEFT_OUT.match(line) and (found := SPAN.match(line))]
    say(f"The checkout and all that followed, as one trace ({trace_id}), without what only reads:\n")
    say("".join(f"  {line}\n" for line in lines))
    say(f"The same with statements and log lines, in a browser: {product.page}#/traces/{trace_id}\n")


def is_whole(lines: list[str]) -> bool:
    roots = [line for line in lines if not line.startswith(" ")]
    advances = [line for line in lines if "process orders.advance-saga.v1" in line]
    has_leaves = all(any(leaf in line for line in lines) for leaf in LEAVES)
    return len(roots) == 1 and len(advances) == ADVANCES and has_leaves


def act(product: Product, service: str, action: str, until: str) -> None:
    product.act(service, action)
    wait_for(f"{action} of {service}", lambda: product.state(service) == until)


def wait_for(what: str, has_come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + REACTION_TIMEOUT_SECONDS
    while not has_come():
        if time.monotonic() > deadline:
            raise DemoFailed(f"the {what} did not come within {REACTION_TIMEOUT_SECONDS} s")
        time.sleep(0.1)


if __name__ == "__main__":
    raise SystemExit(main())
