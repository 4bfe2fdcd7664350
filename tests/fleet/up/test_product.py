"""The services that `fleet up` starts, as fleet.toml or the command line names them."""

from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.service.fleet_toml import members
from fleet.up.product import select
from tests.fleet.services import commit
from tests.fleet.up.checkouts import write_checkout
from tests.support.commands import git


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A fleet.toml with a folder, a repository whose clone lies next to the file, and a repository without a clone."""
    write_checkout(tmp_path / "team/orders", "orders", messaging_style="events", broker="kafka", auth="oidc")
    write_checkout(tmp_path / "platform/billing", "billing")
    write_checkout(tmp_path / "remote/payments", "payments")
    git(tmp_path / "remote/payments", "init", "--quiet")
    commit(tmp_path / "remote/payments")
    file = tmp_path / "platform/fleet.toml"
    file.write_text(
        '[[service]]\npath = "../team/orders"\nsettings = { CARRIER_URL = "https://carrier.example", RETRIES = 3, FAST = true }\n'
        '[[service]]\nurl = "https://git.example.com/shop/billing.git"\n'
        f'[[service]]\nurl = "{(tmp_path / "remote/payments").as_uri()}"\n'
    )
    return file


def test_the_services_of_fleet_toml_with_a_checkout_here_are_started(config: Path) -> None:
    found = select([], config)
    assert [(one.name, one.broker, one.has_identity) for one in found.started] == [
        ("orders", "kafka", True),
        ("billing", "", False),
    ]
    assert found.started[0].settings == {"CARRIER_URL": "https://carrier.example", "RETRIES": "3", "FAST": "true"}
    assert (found.missing, found.left_out) == (["payments"], [])


def test_a_missing_checkout_is_cloned_next_to_fleet_toml(config: Path) -> None:
    found = select([], config, clone=True)
    assert found.started[2].folder == config.parent / "payments"
    assert git(config.parent / "payments", "status", "--porcelain") == ""


def test_a_service_that_is_left_out_stays_known(config: Path) -> None:
    for found in (select([], config, only=["orders"]), select([], config, without=["billing"])):
        assert [one.name for one in found.started] == ["orders"]
        assert [one.name for one in found.left_out] == ["billing"]


def test_named_folders_replace_fleet_toml_and_keep_its_settings(config: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "team/orders", tmp_path / "remote/payments"]
    assert [one.name for one in select(folders, config).started] == ["orders", "payments"]
    assert select(folders, config).started[0].settings["RETRIES"] == "3"
    assert [one.name for one in select(folders, tmp_path / "no.toml").started] == ["orders", "payments"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("settings = 3", "settings has to be a table"),
        ('settings = { carrier_url = "x" }', "carrier_url in settings has to be the name of an environment variable"),
        ("settings = { CARRIER_URL = [] }", "CARRIER_URL in settings has to be .* with a text, a number"),
        ('settings = { CARRIER_URL = "a\\u0000b" }', "CARRIER_URL in settings has to be"),
    ],
)
def test_a_wrong_setting_in_fleet_toml_is_refused_by_name(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "fleet.toml").write_text(f'[[service]]\npath = "orders"\n{content}\n')
    with pytest.raises(FleetError, match=rf"fleet.toml: service 1 \(orders\): {message}"):
        members(tmp_path / "fleet.toml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["order"]}, "there is no service order here: the services are orders, billing"),
        ({"without": ["x"]}, "there is no service x here"),
        ({"without": ["orders", "billing"]}, "--only and --without leave no service to start"),
    ],
)
def test_a_wrong_choice_is_refused_by_name(config: Path, options: dict[str, list[str]], message: str) -> None:
    with pytest.raises(FleetError, match=message):
        select([], config, **options)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("service_name: postgres\n", "service_name is 'postgres', and has to be a name such as user-profile"),
        ("service_name: public\n", "service_name is 'public', and has to be a name such as user-profile"),
        ("service_name: none\n", "service_name is 'none', and has to be a name such as user-profile"),
        ("service_name: '\"; DROP ROLE x'\n", "service_name is .* and has to be a name"),
        ("service_name: ../orders\n", "service_name is '../orders', and has to be a name"),
        ("[]\n", "service_name is None, and has to be a name"),
        ("a: &a [*a\n", "is not YAML, line 2: restore it from git"),
        ("service_name: stranger\n", "has no src/stranger/__main__.py, so it cannot be started"),
    ],
)
def test_hostile_and_damaged_answers_are_refused(tmp_path: Path, answers: str, message: str) -> None:
    folder = write_checkout(tmp_path / "orders", "orders")
    (folder / ".copier-answers.yml").write_text(answers)
    with pytest.raises(FleetError, match=message):
        select([folder], tmp_path / "fleet.toml")


def test_a_folder_that_is_no_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FleetError, match=rf"{tmp_path} is no service: .copier-answers.yml cannot be read \(No such file"
    ):
        select([tmp_path], tmp_path / "fleet.toml")
    with pytest.raises(FleetError, match="nowhere is no service"):
        select([tmp_path / "nowhere"], tmp_path / "fleet.toml", clone=True)


def test_two_checkouts_of_one_service_are_refused(tmp_path: Path) -> None:
    folders = [write_checkout(tmp_path / place, "orders") for place in ("here", "there")]
    with pytest.raises(FleetError, match="are both the service orders, and would share a database: leave one out"):
        select(folders, tmp_path / "fleet.toml")


def test_a_fleet_without_any_checkout_names_the_remedy(config: Path) -> None:
    config.write_text('[[service]]\nurl = "https://git.example.com/shop/orders.git"\n')
    with pytest.raises(FleetError, match=r"no service of .* has a checkout here: `fleet up --clone` makes one of each"):
        select([], config)
