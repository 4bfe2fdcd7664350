"""The settings of each service, as they are derived from its code without running it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.service.files import MOST_TEXT_BYTES
from fleet.up.product import Checkout
from fleet.up.unaddressed import find_unaddressed
from fleet.up.wiring import Shared, environment, own_settings, refuse_unknown
from tests.fleet.up.checkouts import checkout

SETTINGS = '''
"""raise SystemExit is not reached: the file is not run."""
from chassis.identity import OidcSettings
raise SystemExit

class Settings(OidcSettings):
    model_config = {}
    registry: ClassVar[dict[str, str]] = {}
    _private: int
    customers_url: HttpUrl
    user_profile_api_url: Annotated[HttpUrl, Field(description="who")]
    rates_url: HttpUrl = HttpUrl("https://rates.example")
    key: SecretStr = Field()
    pepper: SecretStr = Field(...)
    limit: int = 3
    names: list[str] = Field(default_factory=list)
    size: Annotated[int, Field(ge=1, default=4)]
    mode: str = pydantic.Field("fast")
    named: str = Field(validation_alias="OTHER_NAME")
'''
REQUIRED = {"CUSTOMERS_URL", "USER_PROFILE_API_URL", "KEY", "PEPPER", "OTHER_NAME"}


@pytest.fixture
def orders(tmp_path: Path) -> Checkout:
    return checkout(tmp_path / "orders", "orders", SETTINGS, auth="oidc", messaging_style="events", broker="nats")


@pytest.fixture
def known(orders: Checkout, tmp_path: Path) -> list[Checkout]:
    return [
        orders,
        checkout(tmp_path / "customers", "customers-service"),
        checkout(tmp_path / "user-profile", "profiles"),
        checkout(tmp_path / "rates", "rates"),
    ]


def shared(known: list[Checkout]) -> Shared:
    return Shared(
        ports={one.name: 8101 + number for number, one in enumerate(known)},
        databases={one.name: f"postgresql://{one.package}:pass@127.0.0.1:1/{one.package}" for one in known},
        brokers={"nats": "nats://127.0.0.1:4222"},
        issuer="http://127.0.0.1:1/issuer",
        client_secrets={one.name: f"secret of {one.name}" for one in known},
        telemetry={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:2/token"},
    )


def test_required_settings_are_read_from_the_class_without_running_its_file(orders: Checkout) -> None:
    found = own_settings(orders)
    assert {name for name, is_required in found.items() if is_required} == REQUIRED
    assert {name for name in found if name not in REQUIRED} == {"RATES_URL", "LIMIT", "NAMES", "SIZE", "MODE"}


@pytest.mark.parametrize("content", ["class Settings(", "\0", "(" * 5000, "x = 1"])
def test_a_file_that_is_no_python_has_no_settings(tmp_path: Path, content: str) -> None:
    assert own_settings(checkout(tmp_path / "orders", "orders", content)) == {}


@pytest.mark.timeout(30)
def test_settings_behind_a_device_or_a_pipe_or_in_an_endless_file_are_not_read(orders: Checkout) -> None:
    file = orders.folder / "src/orders/settings.py"
    content = file.read_bytes()
    file.unlink()
    file.symlink_to("/dev/zero")
    assert own_settings(orders) == {}
    file.unlink()
    os.mkfifo(file)
    assert own_settings(orders) == {}
    file.unlink()
    file.write_bytes(content + b"#" * MOST_TEXT_BYTES)
    assert own_settings(orders) == {}


def test_everything_that_cannot_be_derived_is_asked_for_at_once(
    orders: Checkout, known: list[Checkout], tmp_path: Path
) -> None:
    audit = checkout(tmp_path / "audit", "audit", messaging_style="queues", broker="rabbitmq")
    with pytest.raises(FleetError) as failure:
        refuse_unknown([orders, audit], [orders, audit], {})
    assert str(failure.value).splitlines() == [
        "nothing was started, because some settings cannot be derived",
        *(
            f"  orders needs {name}: write it into `settings` of its entry in fleet.toml"
            for name in own_settings(orders)
            if name in REQUIRED
        ),
        "  audit needs rabbitmq, which has no wheel: name a running one by --broker-url amqp://…, or start Docker or Podman, "
        "which run the rabbitmq of its compose.yaml",
    ]
    with pytest.raises(FleetError, match="orders needs KEY") as fewer:
        refuse_unknown([orders, audit], [*known, audit], {"rabbitmq": "amqp://127.0.0.1"})
    assert "_URL" not in str(fewer.value)
    assert "rabbitmq" not in str(fewer.value)


def test_the_environment_and_fleet_toml_give_the_settings_that_cannot_be_derived(
    orders: Checkout, known: list[Checkout], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KEY", "PEPPER", "LIMIT", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "from outside")
    given = Checkout(orders.folder, orders.answers, {"OTHER_NAME": "x", "LIMIT": "7", "CUSTOMERS_URL": "http://there"})
    refuse_unknown([given], known, {})
    found = environment(given, known, shared(known))
    assert {name: found.get(name) for name in ("KEY", "PEPPER", "LIMIT", "OTHER_NAME", "CUSTOMERS_URL")} == {
        "KEY": "from outside",
        "PEPPER": "from outside",
        "LIMIT": "7",
        "OTHER_NAME": "x",
        "CUSTOMERS_URL": "http://there",
    }
    assert found["DATABASE_URL"] == "postgresql://orders:pass@127.0.0.1:1/orders"
    assert {"AWS_SECRET_ACCESS_KEY", "PYTHONDONTWRITEBYTECODE"}.isdisjoint(found)


def test_a_service_finds_its_neighbours_by_their_names_and_all_servers(orders: Checkout, known: list[Checkout]) -> None:
    found = environment(orders, known, shared(known))
    assert found["CUSTOMERS_URL"] == "http://127.0.0.1:8102"
    assert found["USER_PROFILE_API_URL"] == "http://127.0.0.1:8103"
    assert found["RATES_URL"] == "http://127.0.0.1:8104"
    assert (found["BROKER_URL"], found["RUN_WORKER"], found["HTTP_PORT"]) == ("nats://127.0.0.1:4222", "true", "8101")
    assert (found["OIDC_AUDIENCE"], found["OIDC_CLIENT_SECRET"]) == ("orders", "secret of orders")
    assert found["OTEL_RESOURCE_ATTRIBUTES"] == "service.instance.id=orders"


def test_a_service_has_no_settings_of_unused_servers(known: list[Checkout]) -> None:
    found = environment(known[1], known, shared(known))
    assert {"BROKER_URL", "RUN_WORKER", "OIDC_ISSUER", "OIDC_CLIENT_SECRET"}.isdisjoint(found)


def test_a_neighbour_without_a_setting_for_its_address_is_named(orders: Checkout, known: list[Checkout]) -> None:
    code = orders.folder / "src/orders/api"
    code.mkdir()
    (code / "calls.py").write_text(
        'settings.client_for("customers")\napp.settings.client_for(name="profiles")\nsettings.client_for("stranger")\n'
    )
    (code / "broken.py").write_text("client_for(")
    (sentence,) = find_unaddressed(orders, known)
    assert sentence.startswith('orders calls client_for("profiles"), but its settings have no address')
    assert "add the field `profiles_url: HttpUrl | None = None` to src/orders/settings.py" in sentence
    assert find_unaddressed(replace(orders, settings={"NEIGHBOUR_URL": "http://{name}.example"}), known) == []
