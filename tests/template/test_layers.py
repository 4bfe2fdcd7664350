"""The imports that each layer of a generated service may have: they are listed, and all others are refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
from jinja2_ansible_filters import AnsibleCoreFiltersExtension

from docs.site import public_modules
from fleet.judges.import_linter import _parse
from tests.support.paths import ROOT
from tests.support.services import Render

# Allowed and refused imports of each layer. Each is one line of a module of its own.
IMPORTS: dict[str, tuple[list[str], list[str]]] = {
    "domain": (
        ["chassis.errors", "chassis.money", "collections.abc", "dataclasses", "re", "billing.domain.invoices"],
        [
            "billing.settings",
            "billing.usecases.invoices",
            "chassis",
            "chassis.database",
            "chassis.dev.embedded",
            "chassis.fields",
            "orjson",
            "pydantic",
            "sqlalchemy",
            "socket",
            "sqlite3",
            "subprocess",
            "urllib.request",
        ],
    ),
    "persistence": (
        ["chassis.database", "chassis.money", "sqlalchemy", "socket", "orjson", "billing.domain.invoices"],
        [
            "billing.usecases.invoices",
            "chassis.http",
            "chassis.fields",
            "chassis.messaging.outbox",
            "fastapi",
            "starlette",
        ],
    ),
    "usecases": (
        ["chassis.client", "chassis.database", "structlog", "orjson", "billing.persistence.invoices"],
        [
            "billing.api.invoices",
            "chassis.web.middleware",
            "chassis.http",
            "chassis.messages",
            "chassis.messaging.relay",
            "fastapi",
        ],
    ),
    "messaging": (
        ["chassis.client", "chassis.fields", "chassis.messages", "pydantic", "billing.usecases.invoices"],
        ["billing.api.invoices", "chassis.http", "chassis.messaging.inbox", "chassis.problems", "fastapi", "starlette"],
    ),
    "api": (
        ["chassis.client", "chassis.fields", "chassis.http", "fastapi", "billing.usecases.invoices"],
        [
            "billing.main",
            "billing.messaging.invoices",
            "chassis.brokers",
            "chassis.messages",
            "chassis.messaging.outbox",
        ],
    ),
}


def lint(service: Path) -> tuple[int, str]:
    """Return the exit status of import-linter, and its output."""
    program = [sys.executable, "-I", str(ROOT / "fleet/judges/import_linter_program.py"), str(service)]
    ran = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    [[status, said]] = json.loads(ran.stdout)
    return status, said


def refused(service: Path) -> set[tuple[str, str]]:
    return {(one.importer, one.imported) for one in _parse(*lint(service))}


@pytest.fixture
def service(render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "1000")
    return Path(shutil.copytree(render(messaging_style="events", broker="nats"), tmp_path / "billing"))


@pytest.mark.slow
def test_a_layer_imports_only_its_listed_modules(service: Path) -> None:
    wanted = set()
    for layer, (allowed, forbidden) in IMPORTS.items():
        for number, name in enumerate([*allowed, *forbidden]):
            (service / f"src/billing/{layer}/import_{number}.py").write_text(f"import {name}\n")
        # import-linter knows an external package by its first name.
        wanted |= {
            (
                f"billing.{layer}.import_{number}",
                name if name.startswith(("billing", "chassis")) else name.partition(".")[0],
            )
            for number, name in enumerate(forbidden, len(allowed))
        }
    assert refused(service) == wanted


def test_every_layer_may_use_no_more_of_the_chassis_than_is_public(service: Path) -> None:
    rules = (service / ".importlinter").read_text()
    _, _, public = rules.partition("[importlinter:contract:public]")
    assert set(re.findall(r"-> chassis\.(\w+)", public)) == {*public_modules()} - {"testing"}
    assert set(re.findall(r"-> chassis\.(\w+)", rules)) <= {*public_modules()}


def test_the_domain_may_import_only_the_chassis_and_the_standard_library(service: Path) -> None:
    names = set(re.findall(r"billing\.domain\.\*\* -> (\S+)", (service / ".importlinter").read_text()))
    assert names - {"chassis.errors", "chassis.money"} <= sys.stdlib_module_names


def test_rules_that_bring_code_of_their_own_are_not_run(service: Path) -> None:
    (service / "src/billing/evil.py").write_text("open('run', 'w').close()\n")
    with (service / ".importlinter").open("a") as rules:
        rules.write("\n[importlinter:contract:evil]\nname = Evil\ntype = evil\n")
    text = (service / ".importlinter").read_text()
    (service / ".importlinter").write_text(
        text.replace("[importlinter]\n", "[importlinter]\ncontract_types =\n    evil: billing.evil.Evil\n")
    )
    status, said = lint(service)
    assert status != 0
    assert "contract_types" in said
    assert not (service / "run").exists()


@pytest.mark.slow
def test_events_of_the_state_change_the_files_of_an_aggregate_that_the_page_names(render: Render) -> None:
    answers = {"service_name": "customers", "messaging_style": "events-and-queues", "broker": "nats"}
    without, with_ = (
        render(**answers, aggregates=f"Customer: {{status: none, {events}name: string(120)}}")
        for events in ("", "events: state, ")
    )
    page = (ROOT / "docs/how-to/start-a-new-consumer.md").read_text()
    named = set(re.findall(r"`((?:api|domain|messaging|persistence|tests|usecases)/\w[\w/]*\.py)`", page))
    differ = {
        path.relative_to(with_).as_posix().removeprefix("src/customers/")
        for path in (*(with_ / "src").rglob("*.py"), *(with_ / "tests").rglob("*.py"))
        if not (old := without / path.relative_to(with_)).exists() or old.read_bytes() != path.read_bytes()
    }
    assert differ
    assert differ <= named


MODULES = """
Order: {number: string(40), customer: Customer}
Refund: {order_id: uuid, amount: money}
Customer: {name: string(120)}
"""


@pytest.fixture
def modular(render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service of two modules: orders with their customers, and refunds."""
    monkeypatch.setenv("COLUMNS", "1000")
    answers = {"messaging_style": "events-and-queues", "broker": "nats", "independent_aggregates": "yes"}
    return Path(shutil.copytree(render(**answers, aggregates=MODULES), tmp_path / "billing"))


@pytest.mark.slow
def test_no_layer_of_an_independent_aggregate_imports_another_aggregate(modular: Path) -> None:
    assert lint(modular)[0] == 0
    wrong = {
        ("domain/refunds", "domain.orders"),
        ("persistence/refund_queries", "domain.customers"),
        ("usecases/refund_reminders", "persistence.order_queries"),
        ("messaging/refunds", "usecases.orders"),
        ("usecases/customers", "usecases.refunds"),
    }
    for path, name in wrong:
        with (modular / f"src/billing/{path}.py").open("a") as module:
            module.write(f"\nimport billing.{name}\n")
    assert refused(modular) == {(f"billing.{path.replace('/', '.')}", f"billing.{name}") for path, name in wrong}


@pytest.mark.slow
def test_only_a_module_of_no_aggregate_may_know_several(modular: Path) -> None:
    helper = modular / "src/billing/usecases/settlements.py"
    helper.write_text("import billing.usecases.orders\nimport billing.usecases.refunds\n")
    assert lint(modular)[0] == 0
    with (modular / "src/billing/usecases/refunds.py").open("a") as module:
        module.write("\nimport billing.usecases.settlements\n")
    assert ("billing.usecases.refunds", "billing.usecases.settlements") in refused(modular)


@pytest.mark.parametrize(
    ("references", "modules"),
    [
        ({"order": []}, [["order"]]),
        ({"order": ["customer"], "customer": []}, [["customer", "order"]]),
        ({"order": [], "refund": []}, [["order"], ["refund"]]),
        ({"a": ["b"], "c": ["d"], "b": ["c"], "d": [], "e": []}, [["a", "b", "c", "d"], ["e"]]),
        ({"a": ["a"], "b": ["c", "a"], "c": [], "d": ["c"]}, [["a", "b", "c", "d"]]),
    ],
)
def test_aggregates_that_refer_to_each_other_are_one_module(
    references: dict[str, list[str]], modules: list[list[str]]
) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT), extensions=[AnsibleCoreFiltersExtension], undefined=jinja2.StrictUndefined
    )
    listed = [
        {"singular": name, "fields": [{"reference": None}, *({"reference": {"singular": other}} for other in others)]}
        for name, others in references.items()
    ]
    found = environment.get_template("macros/modules.jinja").make_module({"aggregate_list": listed}).modules()  # ty: ignore[missing-attribute]
    assert sorted(map(sorted, json.loads(found))) == modules


@pytest.mark.slow
def test_a_service_has_no_contract_between_aggregates_unless_its_answers_ask_for_independence(
    modular: Path, render: Render
) -> None:
    rules = (modular / ".importlinter").read_text()
    assert set(re.findall(r"contract:module-(\S+)\]", rules)) == {"order", "refund"}
    without = (
        render(messaging_style="events-and-queues", broker="nats", aggregates=MODULES) / ".importlinter"
    ).read_text()
    assert "contract:module-" not in without
    assert rules.startswith(without.rstrip())
