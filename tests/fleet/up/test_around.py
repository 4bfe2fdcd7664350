"""One service with its neighbours: the services that start, and the source of the answers of stubs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet.errors import FleetError
from fleet.main import app
from fleet.map.model import Map
from fleet.map.reader import read_service
from fleet.service.service import Service
from fleet.up.around import around
from fleet.up.product import Checkout, Selection, select
from fleet.up.scopes import find_scopes
from fleet.up.wiring import unknown_settings
from tests.fleet.services import commit
from tests.fleet.up.checkouts import write_checkout
from tests.support.commands import git

ANSWERS = {"auth": "oidc", "_src_path": "https://git.example.com/platform/slipway.git", "_commit": "v1.0.0"}
SETTINGS = "class Settings(chassis.settings.Settings):\n    {}\n"


def document(title: str, *paths: str, scope: str = "") -> str:
    security = {"security": [{"accessToken": [scope]}]} if scope else {}
    get = {"operationId": "read", "responses": {"200": {"description": "", "content": {}}}, **security}
    return json.dumps(
        {"openapi": "3.1.0", "info": {"title": title, "version": "1"}, "paths": {path: {"get": get} for path in paths}}
    )


def write(folder: Path, path: str, content: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(content)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain storefront → orders → payments → ledger and accounts; storefront → catalog; payments → a stranger."""
    root = tmp_path_factory.mktemp("product")
    wants = {
        "storefront": "orders_url: str; catalog_url: str",
        "orders": "payments_url: str",
        "payments": "ledger_url: str; accounts_url: str; stranger_url: str",
        "catalog": "prices_url: str",
        "island": "key: int = 1",
    }
    for name, fields in wants.items():
        folder = write_checkout(root / name, name, SETTINGS.format(fields.replace("; ", "\n    ")), **ANSWERS)
        write(folder, "specs/openapi.json", document(name, f"/v1/{name}", f"/v1/{name}/all", scope=f"{name}:all"))
        write(folder, "catalog-info.yaml", f"kind: Component\nspec: {{providesApis: [{name}]}}\n")
        git(folder, "init", "--quiet")
        commit(folder)
    uses = (("storefront", "orders"), ("orders", "payments"), ("payments", "ledger"), ("storefront", "catalog"))
    for caller, name in uses:
        write(root / caller, f"specs/uses/{name}.json", document(name, f"/v1/{name}", scope=f"{name}:read"))
    entries = "".join(f'[[service]]\npath = "{name}"\n' for name in wants)
    gone = "".join(f'[[service]]\nurl = "file://{root}/gone/{name}"\n' for name in ("ledger", "accounts", "far"))
    (root / "fleet.toml").write_text(entries + gone)
    return root


@pytest.fixture
def config(product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("fleet.up.around.read_folders", read_here)
    return shutil.copytree(product, tmp_path / "product") / "fleet.toml"


def read_here(folders: list[Path]) -> Map:
    """Read the map in this process, which is quicker than in processes of their own."""
    found, unread = [], {}
    for folder in folders:
        try:
            found.append(read_service(Service(folder)))
        except FleetError as error:
            unread[folder.name] = str(error)
    return Map(found, unread)


def narrowed(config: Path, name: str, **options: Any) -> Selection:
    return around(name, select([], config, **options), config)


def names(found: list[Any]) -> list[str]:
    return [one.name for one in found]


def test_neighbours_start_and_the_services_beyond_are_stubs(config: Path) -> None:
    chosen = narrowed(config, "orders")
    assert names(chosen.started) == ["storefront", "orders", "payments"]
    stubs = {one.name: one for one in chosen.stubs}
    assert stubs.keys() == {"catalog", "ledger", "accounts"}
    assert stubs["catalog"].reply("GET", "/v1/catalog/all")[0] == 200  # a stub by the whole document of the checkout
    # a stub by the part in use, because no repository is reached
    assert stubs["ledger"].reply("GET", "/v1/ledger")[0] == 200
    assert stubs["ledger"].reply("GET", "/v1/ledger/all")[0] == 404
    assert stubs["accounts"].reply("GET", "/v1/accounts")[0] == 501
    assert "accounts" in stubs["accounts"].missing
    known = [*chosen.started, *chosen.stubs]
    assert [unknown_settings(one, known) for one in chosen.started] == [[], [], ["STRANGER_URL"]]


def test_a_folder_without_git_has_the_neighbours_that_its_files_name(config: Path) -> None:
    for name in ("orders", "payments"):
        shutil.rmtree(config.parent / name / ".git")
    assert names(narrowed(config, "orders").started) == ["storefront", "orders", "payments"]


def test_a_name_in_code_leads_to_no_file_outside_of_the_service(config: Path) -> None:
    (config.parent / "orders/src/orders/calls.py").write_text('settings.client_for("../../../secret")\n')
    (config.parent / "secret.json").write_text(document("secret", "/v1/secret"))
    assert not any("secret" in one.name for one in narrowed(config, "orders").stubs)


def test_a_service_that_is_left_out_has_no_stub(config: Path) -> None:
    chosen = narrowed(config, "orders", without=["payments"])
    assert (names(chosen.started), names(chosen.left_out)) == (["storefront", "orders"], ["payments"])
    assert names(chosen.stubs) == ["catalog"]
    assert names(narrowed(config, "island").started) == ["island"]


def test_a_name_that_no_service_has_is_an_error(config: Path) -> None:
    with pytest.raises(
        FleetError, match="there is no service order to start here: the services are storefront, orders"
    ):
        narrowed(config, "order")


def test_only_does_not_go_with_around(config: Path) -> None:
    done = CliRunner().invoke(app, ["up", f"--config={config}", "--around=orders", "--only=orders"])
    assert "--around chooses the services to start" in str(done.exception)


def test_a_document_that_is_none_is_the_reason_in_the_answer(config: Path) -> None:
    (config.parent / "catalog/specs/openapi.json").write_text('{"openapi": "3.1.0", "paths": 3}')
    (config.parent / "storefront/specs/uses/catalog.json").write_text("7")
    (stub,) = [one for one in narrowed(config, "orders").stubs if one.name == "catalog"]
    assert "no API document of catalog is known" in stub.missing


@pytest.mark.parametrize(
    "part",
    [
        '"paths": {"/v1/ledger": [1]}',
        '"paths": {}, "components": []',
        '"paths": {}, "components": {"schemas": 3}',
        '"paths": {"/v1/ledger": {"$ref": "#/x-items/a"}}, "x-items": {"a": {}}',
    ],
)
def test_a_part_of_another_structure_is_left_out_of_the_joined_document(config: Path, part: str) -> None:
    written = f'{{"openapi": "3.1.0", "info": {{"title": "ledger", "version": "1"}}, {part}}}'
    write(config.parent / "payments", "specs/uses/ledger.json", written)
    (stub,) = [one for one in narrowed(config, "orders").stubs if one.name == "ledger"]
    assert stub.reply("GET", "/v1/ledger")[0] in (404, 501)


def test_a_date_of_a_document_in_yaml_is_a_text(config: Path) -> None:
    answer = '"200": {description: "", content: {application/json: {example: 2027-01-31}}}'
    written = f"openapi: 3.1.0\npaths: {{/v1/ledger: {{get: {{operationId: read, responses: {{{answer}}}}}}}}}\n"
    write(config.parent / "payments", "specs/uses/ledger.json", written)
    (stub,) = [one for one in narrowed(config, "orders").stubs if one.name == "ledger"]
    assert stub.reply("GET", "/v1/ledger")[2] == b'"2027-01-31"'


def test_a_neighbour_that_callers_know_by_its_name_in_fleet_toml_starts(config: Path) -> None:
    listed = '[[service]]\npath = "prices"\nname = "prices"\n'
    write_checkout(config.parent / "prices", "price-list", SETTINGS.format("key: int = 1"), **ANSWERS)
    config.write_text(config.read_text() + listed)
    for name in ("catalog", "price-list"):
        chosen = narrowed(config, name)
        assert {"catalog", "price-list"} <= {*names(chosen.started)}
        assert "price-list" not in names(chosen.stubs)


def test_a_token_has_the_scopes_of_the_calls_that_the_client_makes(config: Path) -> None:
    chosen = narrowed(config, "orders")
    known: list[Checkout] = [*chosen.started, *chosen.stubs]  # ty: ignore[invalid-assignment]
    assert find_scopes(known, "payments", "orders") == ["payments:read"]
    assert find_scopes(known, "orders", "storefront") == ["orders:read"]
    assert find_scopes(known, "orders", "payments") == ["orders:all"]  # no document names its calls
    assert find_scopes(known, "orders", "") == ["orders:all"]  # a person
    assert find_scopes(known, "catalog", "orders") == ["catalog:all"]
    assert find_scopes(known, "stranger", "orders") == []
    (config.parent / "storefront/specs/uses/orders.json").write_text('{"paths": {"/": {"get": {"security": 3}}}}')
    assert find_scopes(known, "orders", "storefront") == []
