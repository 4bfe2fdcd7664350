"""The viewer with a program that runs several services: their states, actions on them, parked messages and sagas."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from chassis.dev.viewer import server as viewer
from chassis.dev.viewer.product import Edge, RefusedAction, ServiceState

from tests.chassis.dev.sent_spans import CLIENT, CONSUMER, PRODUCER, export, span
from tests.chassis.dev.viewer_requests import ask

PLACED = "orders.order-placed.v1"
PARKED = "01a2065e-0000-7000-8000-000000000001"


class Shop:
    """Two services. The service payments does not start."""

    command = "fleet up"

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def services(self) -> list[ServiceState]:
        return [
            ServiceState("orders", "ready", url="http://127.0.0.1:8001", restarts=2),
            ServiceState("payments", "broken", problem="ImportError: <b>"),
        ]

    def declared(self) -> list[Edge]:
        return [Edge("orders", "payments", "http"), Edge("orders", "stock", "message", PLACED)]

    def act(self, service: str, action: str) -> None:
        if service == "payments":
            raise RefusedAction("payments does not start: see its traceback.")
        self.done.append((service, action))

    def run(self, service: str, *arguments: str) -> str:
        self.done.append((service, *arguments))
        return "[]"


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def shown(shop: Shop, tmp_path: Path) -> Generator[viewer.Viewer]:
    with viewer.running(tmp_path, product=shop) as running:
        yield running


def test_the_states_of_the_services_are_served(shown: viewer.Viewer) -> None:
    answer = json.loads(ask(shown, "product")[1])
    assert answer["command"] == "fleet up"
    assert [(state["name"], state["state"]) for state in answer["services"]] == [
        ("orders", "ready"),
        ("payments", "broken"),
    ]
    assert answer["services"][0]["restarts"] == 2


def test_a_problem_with_half_a_surrogate_pair_is_shown(
    shown: viewer.Viewer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop, "services", lambda: [ServiceState("orders", "broken", problem="odd \ud800")])
    assert json.loads(ask(shown, "product")[1])["services"][0]["problem"] == "odd ?"


def test_an_action_reaches_the_service_or_is_refused_with_a_reason(shown: viewer.Viewer, shop: Shop) -> None:
    assert ask(shown, "services/orders/restart", b"")[0] == 200
    assert ask(shown, "services/payments/start", b"")[:2] == (409, "payments does not start: see its traceback.\n")
    assert ask(shown, "services/orders/delete", b"")[0] == 404
    assert ask(shown, "services/nobody/stop", b"")[:2] == (404, "`fleet up` runs no service nobody.\n")
    assert shop.done == [("orders", "restart")]


def test_a_parked_message_is_listed_replayed_and_dropped_by_the_command_of_the_service(
    shown: viewer.Viewer, shop: Shop
) -> None:
    assert ask(shown, "services/orders/parked")[:2] == (200, "[]")
    for action in ("replay", "drop"):
        assert ask(shown, f"services/orders/parked/{action}/{PARKED}", b"")[0] == 200
    assert ask(shown, f"services/orders/parked/show/{PARKED}", b"")[0] == 404
    assert ask(shown, f"services/orders/parked/drop/{'-' * 36}", b"")[0] == 404
    assert shop.done == [
        ("orders", "parked", "list", "--format", "json"),
        ("orders", "parked", "replay", PARKED),
        ("orders", "parked", "drop", PARKED),
    ]


def test_a_saga_is_listed_retried_and_abandoned_by_the_command_of_the_service(shown: viewer.Viewer, shop: Shop) -> None:
    assert ask(shown, "services/orders/sagas")[:2] == (200, "[]")
    for decision in ("retry", "by-hand", "abandon"):
        assert ask(shown, f"services/orders/sagas/{decision}/{PARKED}", b"")[0] == 200
    status, problem, _ = ask(shown, f"services/orders/sagas/export/{PARKED}", b"")
    assert (status, problem) == (404, "export is no action on a saga. Actions are retry, by-hand, abandon.\n")
    assert ask(shown, f"services/orders/sagas/retry/{'-' * 36}", b"")[0] == 404
    assert ask(shown, f"services/orders/settings/retry/{PARKED}", b"")[0] == 404
    assert ask(shown, "services/orders/settings")[0] == 404
    assert shop.done == [
        ("orders", "sagas", "list", "--state", "all", "--latest", "--limit", "20", "--format", "json"),
        ("orders", "sagas", "retry", PARKED),
        ("orders", "sagas", "retry", "--by-hand", PARKED),
        ("orders", "sagas", "abandon", PARKED),
    ]


def test_a_command_whose_output_is_no_json_is_named(
    shown: viewer.Viewer, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop, "run", lambda *_: "loading rates …\n[]")
    status, problem, _ = ask(shown, "services/orders/parked")
    assert (status, problem) == (
        502,
        "`python -m orders parked list --format json` printed something else than JSON. Run the command to see what.\n",
    )


def test_a_list_changes_nothing_that_pages_ask_for_again(shown: viewer.Viewer) -> None:
    before = shown.store.wait(-2, timeout=0)
    assert ask(shown, "services/orders/sagas")[0] == 200
    assert shown.store.wait(-2, timeout=0) == before
    assert ask(shown, f"services/orders/sagas/retry/{PARKED}", b"")[0] == 200
    assert shown.store.wait(-2, timeout=0) != before


def test_the_viewer_mentions_optional_panels_only_in_their_own_files() -> None:
    folder = Path(viewer.__file__).parent
    named = {file.relative_to(folder) for file in folder.rglob("*.*") if file.suffix in {".py", ".js", ".css", ".html"}}
    mentions = {str(file) for file in named if "saga" in (folder / file).read_text().lower()}
    assert mentions == {f"panels/sagas.{kind}" for kind in ("py", "js", "css")}


def test_another_website_and_a_reader_without_the_token_cannot_act(shown: viewer.Viewer, shop: Shop) -> None:
    assert ask(shown, "services/orders/stop", b"", Origin="https://evil.example")[0] == 403
    assert ask(shown, "services/orders/stop", b"", Origin="null")[0] == 403
    assert ask(shown, "services/orders/stop", b"", Host="evil.example")[0] == 403
    assert ask(shown, "", b"", raw_path="/wrong/services/orders/stop")[0] == 404
    assert ask(shown, "services/orders/stop")[0] == 404
    assert shop.done == []


def test_the_viewer_of_one_service_has_no_actions(tmp_path: Path) -> None:
    with viewer.running(tmp_path) as alone:
        assert json.loads(ask(alone, "product")[1])["services"] is None
        assert ask(alone, "services/orders/stop", b"")[:2] == (404, "`make dev` runs no service orders.\n")


def test_the_map_has_used_edges_and_declared_edges(shown: viewer.Viewer) -> None:
    http: dict[str, Any] = {"kind": CLIENT, "http__request__method": "POST"}
    placed: dict[str, Any] = {"messaging__destination__name": PLACED}
    sent = {
        "orders": [
            span(1, http__response__status_code=201),
            span(2, 1, **http, slipway__neighbour="payments"),
            span(3, 1, **http, url__full="http://127.0.0.1:8001/v1/orders", failed=True),
            span(4, 1, kind=CLIENT, db__query__text="SELECT 1"),
            span(5, 1, kind=PRODUCER, **placed),
        ],
        "payments": [span(6, 2, failed=True)],
        "stock": [span(26, 5, kind=CONSUMER, **placed), span(27, 5, kind=CONSUMER, messaging__destination__name="other.v1")],
    }  # fmt: skip
    for service, spans in sent.items():
        assert ask(shown, "v1/traces", export(spans, service))[0] == 200
    answer = json.loads(ask(shown, "edges?seconds=300")[1])
    found = {
        (edge["source"], edge["target"], edge["kind"], edge["name"]): (edge["count"], edge["failed"], edge["declared"])
        for edge in answer["edges"]
    }
    assert found == {
        ("", "orders", "http", ""): (1, 0, None),
        ("orders", "orders", "http", ""): (1, 1, False),
        ("orders", "payments", "http", ""): (1, 1, True),
        ("orders", "stock", "message", PLACED): (1, 0, True),
        ("orders", "stock", "message", "other.v1"): (1, 0, False),
    }
    (waited,) = [edge["waited"] for edge in answer["edges"] if edge["name"] == PLACED]
    assert waited == 20 * 10**6
    assert answer["sent"] == [{"source": "orders", "name": PLACED, "count": 1, "failed": 0}]


@pytest.mark.parametrize("seconds", ["", "x", "-1", "9" * 400, "%C2%B2"])
def test_a_time_of_the_map_that_is_no_number_is_replaced(shown: viewer.Viewer, seconds: str) -> None:
    assert ask(shown, f"edges?seconds={seconds}")[0] == 200


def test_an_edge_that_was_not_used_is_on_the_map_without_a_rate(shown: viewer.Viewer) -> None:
    (edge, _) = json.loads(ask(shown, "edges")[1])["edges"]
    assert (edge["source"], edge["target"], edge["count"], edge["declared"]) == ("orders", "payments", 0, True)
