"""The parts of a service are found by their files, at any depth, and each is used once."""

import sys
import uuid
from collections.abc import Callable, Generator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from chassis.application import api
from chassis.messages import messages_in
from chassis.service import Service, routers_in, tables_in

ROUTER = """
from fastapi import APIRouter

router = APIRouter(prefix="/{name}")


@router.get("", name="{name}")
async def show() -> str:
    return "{name}"
"""

Make = Callable[[dict[str, str]], ModuleType]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Make]:
    """`make({"a/b.py": text})`: import a package with these files."""
    name = f"made_{uuid.uuid4().hex}"
    monkeypatch.syspath_prepend(tmp_path)

    def make(files: dict[str, str]) -> ModuleType:
        for path, text in ({"__init__.py": ""} | files).items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("PACKAGE", name))
        return import_module(name)

    yield make
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[module]


def served(service: Service, package: ModuleType) -> list[str]:
    document = api(replace(service, routers=routers_in(package))).openapi()
    return list(document["paths"])


@pytest.mark.parametrize("inits", [["admin/__init__.py", "admin/deep/__init__.py"], ["admin/__init__.py"], []])
def test_routers_are_found_at_any_depth_whether_or_not_a_folder_is_a_package(
    service: Service, make: Make, inits: list[str]
) -> None:
    names = {"orders.py": "orders", "admin/users.py": "users", "admin/deep/keys.py": "keys"}
    package = make({path: ROUTER.format(name=name) for path, name in names.items()} | dict.fromkeys(inits, ""))

    assert sorted(served(service, package)) == ["/keys", "/orders", "/users"]


def test_a_router_that_another_includes_or_imports_is_served_once(service: Service, make: Make) -> None:
    package = make(
        {
            "admin/__init__.py": "from fastapi import APIRouter\nfrom PACKAGE.admin import users\n"
            'router = APIRouter(prefix="/admin")\nrouter.include_router(users.router)',
            "admin/users.py": ROUTER.format(name="users"),
            "orders.py": ROUTER.format(name="orders"),
            "other.py": "from PACKAGE.orders import router",
        }
    )

    assert served(service, package) == ["/admin/users", "/orders"]


def test_a_module_that_cannot_be_imported_is_no_module_that_is_passed_over(make: Make) -> None:
    package = make({"admin/users.py": "import no_such_module"})

    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        routers_in(package)


def test_a_folder_of_an_editor_is_not_imported(service: Service, make: Make) -> None:
    package = make({".checkpoints/orders.py": "raise RuntimeError", "orders.py": ROUTER.format(name="orders")})

    assert served(service, package) == ["/orders"]


def test_tables_are_found_at_any_depth(make: Make) -> None:
    table = 'import sqlalchemy as sa\nfrom PACKAGE.schema import metadata\nsa.Table("{0}", metadata)'
    package = make(
        {
            "schema.py": 'from chassis.database import metadata_for\nmetadata = metadata_for("made")',
            "orders.py": table.format("orders"),
            "billing/schema.py": table.format("rates"),
        }
    )

    assert sorted(tables_in(package).tables) == ["made.orders", "made.rates"]


def test_messages_are_found_at_any_depth(make: Make) -> None:
    line = """
from chassis.messages import Contract, OnEvent

class PaidV1(Contract):
    pass

async def on_paid(event, uow):
    pass

INCOMING = [OnEvent("bank.paid.v1", PaidV1, on_paid)]
"""
    package = make({"incoming/deep/payments.py": line})

    assert list(messages_in(package, service="made").receivers) == ["bank.paid.v1"]
