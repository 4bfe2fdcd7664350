"""`fleet map` shows the calls and messages between services, and the mistakes in them."""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from examples.__main__ import SHOP
from fleet.check.findings import Level
from fleet.check.standing import Standing
from fleet.errors import FleetError
from fleet.main import app
from fleet.map import message_findings, reader
from fleet.map import waivers as waivers_module
from fleet.map.call_findings import LIMIT
from fleet.map.facts import Facts, facts
from fleet.map.findings import findings
from fleet.map.model import Edge, Kind, Map, MapFinding
from fleet.processes.resource_limits import LimitExceeded
from fleet.service.fleet_toml import Member
from fleet.service.service import Service
from tests.fleet.services import Born
from tests.support.commands import git, service_environment
from tests.support.paths import ROOT

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}

PLACED = "orders.order-placed.v1"
ISSUED = "billing.invoice-issued.v1"
PRINT = "printing.print-label.v1"


def body(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


@dataclass
class Repository:
    """The repository of a service, with its data on neighbours."""

    sends: dict[str, Any] = field(default_factory=dict)
    takes: dict[str, Any] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)
    component: dict[str, Any] = field(default_factory=dict)
    entities: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path, name: str) -> Path:
        """Commit the data."""
        api = {"kind": "API", "metadata": {"name": name}, "spec": {"type": "openapi"}}
        component = {
            "kind": "Component",
            "metadata": {"name": name},
            "spec": {"providesApis": [name], **self.component},
        }
        files = {
            ".copier-answers.yml": f"_commit: v1.0.0\n_src_path: nowhere\nservice_name: {json.dumps(name)}\n",
            "catalog-info.yaml": yaml.safe_dump_all([component, api, *self.entities]),
            "deploy/base/deployment.yaml": yaml.safe_dump({"env": [database(f"{name}-database")]}),
            **{
                f"deploy/overlays/{where}/kustomization.yaml": f"namespace: {name}-{where}\n"
                for where in ("staging", "production")
            },
            **self._documents(),
            **self.files,
        }
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        git(folder, "init", "--quiet", "--initial-branch", "main")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "Start")
        return folder

    def _documents(self) -> dict[str, str]:
        """Return the documents as `make specs` writes them, with the published schemas."""
        names = self.sends.keys() | self.takes.keys()
        if not names:
            return {}
        operations = {
            f"{action}.{name}": {"action": action, "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}]}
            for action, done in (("send", self.sends), ("receive", self.takes))
            for name in done
        }
        messages = {
            name: {"tags": [{"name": self._kind(name)}], "payload": {"$ref": f"#/components/schemas/{name}"}}
            for name in names
        }
        schemas = {**self.takes, **self.sends, "unused": body()}
        document = {
            "asyncapi": "3.0.0",
            "operations": operations,
            "components": {"messages": messages, "schemas": schemas},
        }
        ours = {name: one for name, one in self.sends.items() if name not in self.jobs}
        ours |= {name: one for name, one in self.takes.items() if name in self.jobs}
        published = {
            f"specs/messages/{name}.json": json.dumps({"x-kind": self._kind(name), **one}) for name, one in ours.items()
        }
        return {"specs/asyncapi.json": json.dumps(document, indent=2), **published}

    def _kind(self, name: str) -> str:
        return "job" if name in self.jobs else "event"


def database(secret: str) -> dict[str, Any]:
    """Return a container's variable from a Secret, as in Kubernetes."""
    return {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": secret, "key": "DATABASE_URL"}}}


def client(setting: str, module: str = "billing/api/customers.py") -> dict[str, str]:
    """Return a file that calls a neighbour, as in docs/how-to/call-another-service.md."""
    text = f"from chassis.client import service_client\n\n\ndef ask(app):\n    return service_client({setting})\n"
    return {f"src/{module}": text}


Shop = dict[str, Repository]


def shop() -> Shop:
    """Four services without findings."""
    return {
        "orders": Repository(
            sends={PLACED: body(order_id=TEXT, total=NUMBER, note=TEXT)},
            takes={ISSUED: body(order_id=TEXT)},
        ),
        "billing": Repository(
            sends={ISSUED: body(order_id=TEXT), PRINT: body(text=TEXT)},
            takes={PLACED: body(order_id=TEXT, total=NUMBER)},
            jobs={PRINT},
            component={"consumesApis": ["api:default/customers", "orders", "printing-messages"]},
            files=client("str(app.state.settings.customers_url), timeout_seconds=2"),
        ),
        "printing": Repository(
            takes={PRINT: body(text=TEXT)},
            jobs={PRINT},
            entities=[{"kind": "API", "metadata": {"name": "printing-messages"}, "spec": {"type": "asyncapi"}}],
        ),
        "customers": Repository(),
    }


_KNOWN: dict[str, Facts] = {}


def drawn(folder: Path, services: Shop) -> Map:
    """Draw the map of these services. Each repository is read once, because most tests change one of four."""
    for name, one in services.items():
        if f"{name} {one}" not in _KNOWN:
            _KNOWN[f"{name} {one}"] = facts(Service(one.write(folder / name, name)))
    return Map(_KNOWN[f"{name} {one}"] for name, one in services.items())


def written(folder: Path, services: Shop) -> list[Path]:
    """Write the repositories of the services."""
    return [one.write(folder / name, name) for name, one in services.items()]


def test_the_map_shows_every_call_event_and_job_once(tmp_path: Path) -> None:
    map_ = drawn(tmp_path, shop())
    assert {(edge.kind, edge.source, edge.target, edge.name) for edge in map_.edges} == {
        (Kind.CALL, "billing", "customers", "customers"),
        (Kind.CALL, "billing", "orders", "orders"),
        (Kind.EVENT, "orders", "billing", PLACED),
        (Kind.EVENT, "billing", "orders", ISSUED),
        (Kind.JOB, "billing", "printing", PRINT),
    }
    assert len(map_.edges) == 5
    assert findings(map_) == []


Mutation = Callable[[Shop], object]


def publish(name: str, schema: dict[str, Any]) -> Mutation:
    return lambda shop: shop[name.partition(".")[0]].sends.update({name: schema})


def consume(**apis: str) -> Mutation:
    """Let services consume one more API each."""

    def mutate(shop: Shop) -> None:
        for name, api in apis.items():
            shop[name].component.setdefault("consumesApis", []).append(api)

    return mutate


def overlay(name: str, where: str, **content: Any) -> Mutation:
    """Replace the kustomization of a service's overlay."""
    text = yaml.safe_dump({"namespace": f"{name}-{where}", **content})
    return lambda shop: shop[name].files.update({f"deploy/overlays/{where}/kustomization.yaml": text})


def external(name: str, **spec: Any) -> Mutation:
    """Write the ExternalSecret of a service's database."""
    text = yaml.safe_dump({"kind": "ExternalSecret", "metadata": {"name": f"{name}-database"}, "spec": spec})
    return lambda shop: shop[name].files.update({EXTERNAL: text})


def depend(resource: str, *names: str) -> Mutation:
    def mutate(shop: Shop) -> None:
        for name in names:
            shop[name].component["dependsOn"] = [f"resource:default/{resource}", "component:default/other"]

    return mutate


def both(*mutations: Mutation) -> Mutation:
    return lambda shop: [mutate(shop) for mutate in mutations]


SHOP_DATABASE = "postgresql://user:secret@db.example.com/shop"
LITERAL = [{"name": "any", "literals": [f"DATABASE_URL={SHOP_DATABASE}", "DRAIN_SECONDS=5"]}]
OTHER = {"env": [database("database")]}
ENV = {"spec": {"template": {"spec": {"containers": [{"name": "http", "env": [database("orders-database")]}]}}}}
JSON_PATCH = """\
- op: replace
  path: /spec/template/spec/containers/0/env/0/valueFrom/secretKeyRef/name
  value: orders-database
"""
EXTERNAL_SECRET = yaml.safe_dump(
    {"spec": {"data": [{"secretKey": "DATABASE_URL", "remoteRef": {"key": "shop/production", "property": "database"}}]}}
)
EXTERNAL = "deploy/overlays/production/external-secret.yaml"
ENCODED = base64.b64encode(SHOP_DATABASE.encode()).decode()
DATABASE = {"kind": "Resource", "metadata": {"name": "shop"}, "spec": {"type": "database", "owner": "group:shop"}}
BUCKET = {**DATABASE, "spec": {"type": "s3-bucket", "owner": "group:shop"}}

# Name: the change of the shop, the finding's id, its severity, the services that it concerns, and its text.
MUTATIONS: dict[str, tuple[Mutation, str, Level, tuple[str, ...], str]] = {
    "an event that its publisher has dropped": (
        lambda shop: shop["orders"].sends.clear(),
        "map-event-unpublished",
        Level.ERROR,
        ("billing", "orders"),
        f"the service listens to {PLACED}, which no service publishes",
    ),
    "an event of a service that is not there": (
        lambda shop: shop["billing"].takes.update({"approvals.approved.v1": body()}),
        "map-event-unpublished",
        Level.WARNING,
        ("billing",),
        "no service approvals is here",
    ),
    "an event of a service whose name has lost a letter": (
        lambda shop: shop["billing"].takes.update({"order.order-placed.v1": body()}),
        "map-event-unpublished",
        Level.ERROR,
        ("billing",),
        "no service order is here, but orders is",
    ),
    "an event of a service whose name has two letters exchanged": (
        lambda shop: shop["billing"].takes.update({"odrers.order-placed.v1": body()}),
        "map-event-unpublished",
        Level.ERROR,
        ("billing",),
        "no service odrers is here, but orders is",
    ),
    "an event of a service whose name is written in another way": (
        lambda shop: shop["billing"].takes.update({"Orders_Service.order-placed.v1": body()}),
        "map-event-unpublished",
        Level.ERROR,
        ("billing",),
        "no service Orders_Service is here, but orders is",
    ),
    "a job of a service whose name has a letter too many": (
        lambda shop: (
            shop["billing"].sends.update({"printting.print-label.v1": body()}),
            shop["billing"].jobs.add("printting.print-label.v1"),
        ),
        "map-job-undone",
        Level.ERROR,
        ("billing",),
        "no service printting is here, but printing is",
    ),
    "an API whose name has a wrong letter": (
        consume(orders="custamers"),
        "map-call-unknown",
        Level.ERROR,
        ("orders",),
        "the service consumes the API custamers, which no service here provides",
    ),
    "a job that nobody does any more": (
        lambda shop: shop["printing"].takes.clear(),
        "map-job-undone",
        Level.ERROR,
        ("billing", "printing"),
        f"the service sends {PRINT}, which no service processes",
    ),
    "a job of its own that it does not do": (
        lambda shop: (
            shop["orders"].sends.update({"orders.pack.v1": body()}),
            shop["orders"].jobs.add("orders.pack.v1"),
        ),
        "map-job-undone",
        Level.ERROR,
        ("orders",),
        "the service sends orders.pack.v1, which no service processes",
    ),
    "an event that nobody takes": (
        publish("orders.order-withdrawn.v1", body()),
        "map-event-unheard",
        Level.WARNING,
        ("orders",),
        "the service publishes orders.order-withdrawn.v1, which no service here listens to",
    ),
    "a job that nobody asks for": (
        lambda shop: (
            shop["printing"].takes.update({"printing.empty.v1": body()}),
            shop["printing"].jobs.add("printing.empty.v1"),
        ),
        "map-job-unasked",
        Level.WARNING,
        ("printing",),
        "the service processes printing.empty.v1, which no service here sends",
    ),
    "a field that was removed": (
        publish(PLACED, body(order_id=TEXT, note=TEXT)),
        "map-event-unfit",
        Level.ERROR,
        ("orders", "billing"),
        "total is required, and is not sent",
    ),
    "a field of another type": (
        publish(PLACED, body(order_id=TEXT, total=TEXT)),
        "map-event-unfit",
        Level.ERROR,
        ("orders", "billing"),
        "total may be string, expected integer",
    ),
    "a field that may be missing": (
        publish(PLACED, {**body(order_id=TEXT, total=NUMBER), "required": ["order_id"]}),
        "map-event-unfit",
        Level.ERROR,
        ("orders", "billing"),
        "total is required, and may be missing",
    ),
    "a job with less in it than who does it needs": (
        lambda shop: shop["printing"].takes.update({PRINT: body(text=TEXT, copies=NUMBER)}),
        "map-job-unfit",
        Level.ERROR,
        ("printing", "billing"),
        f"{PRINT} at billing does not match the schema that printing expects: copies is required, and is not sent",
    ),
    "a pattern that cannot be compared": (
        lambda shop: shop["billing"].takes.update({PLACED: body(order_id={**TEXT, "pattern": "^[a-f]+$"})}),
        "map-event-unfit",
        Level.WARNING,
        ("orders", "billing"),
        "or they cannot be compared: order_id has no pattern, expected one",
    ),
    "a schema that is none": (
        lambda shop: shop["billing"].takes.update({PLACED: {"$ref": "#/nowhere"}}),
        "map-event-unfit",
        Level.WARNING,
        ("orders", "billing"),
        "the message cannot be compared: the reference #/nowhere leads nowhere",
    ),
    "an API that nobody provides": (
        consume(orders="ledger"),
        "map-call-unknown",
        Level.WARNING,
        ("orders",),
        "the service consumes the API ledger, which no service here provides",
    ),
    "a call of a setting that the catalogue does not know": (
        lambda shop: shop["orders"].files.update(client("base_url=settings.customers_api_url", "orders/api/asked.py")),
        "map-call-undeclared",
        Level.ERROR,
        ("orders",),
        "the service calls customers, and catalog-info.yaml does not declare the call",
    ),
    "a call of a neighbour by name that the catalogue does not know": (
        lambda shop: shop["orders"].files.update(
            {"src/orders/api/asked.py": "def ask(app):\n    return app.state.settings.client_for('customers')\n"}
        ),
        "map-call-undeclared",
        Level.ERROR,
        ("orders",),
        "the service calls customers, and catalog-info.yaml does not declare the call",
    ),
    "a call of a host that the catalogue does not know": (
        lambda shop: shop["orders"].files.update(client("'http://customers.customers-production'", "orders/asked.py")),
        "map-call-undeclared",
        Level.ERROR,
        ("orders",),
        "the service calls customers",
    ),
    "two that call each other": (
        consume(orders="billing"),
        "map-call-cycle",
        Level.ERROR,
        ("billing", "orders"),
        "billing → orders → billing call each other in a circle",
    ),
    "too many calls in a row": (
        consume(customers="printing", printing="orders"),
        "map-call-depth",
        Level.ERROR,
        ("billing", "customers", "printing", "orders"),
        "billing → customers → printing → orders: 3 calls in a row, where 2 are allowed",
    ),
    "one Secret of two services": (
        overlay("billing", "production", patches=[{"patch": yaml.safe_dump(ENV)}]),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "orders and billing share a database: the Secret orders-database",
    ),
    "one Secret of two services, by a JSON patch": (
        overlay("billing", "production", patches=[{"patch": JSON_PATCH}]),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the Secret orders-database",
    ),
    "one Secret of two services, by a JSON patch in a file of its own": (
        lambda shop: shop["billing"].files.update({"deploy/overlays/staging/database.yaml": JSON_PATCH}),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the Secret orders-database",
    ),
    "one address in two overlays": (
        both(*(overlay(name, "staging", configMapGenerator=LITERAL) for name in ("orders", "billing"))),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "share a database: the address db.example.com/shop",
    ),
    "one entry of a secret store": (
        lambda shop: [shop[name].files.update({EXTERNAL: EXTERNAL_SECRET}) for name in ("orders", "billing")],
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "in the secret store shop/production#database",
    ),
    "one entry of a secret store, taken whole": (
        both(*(external(name, dataFrom=[{"extract": {"key": "shop/database"}}]) for name in ("orders", "billing"))),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "in the secret store shop/database",
    ),
    "one entry of a secret store, which only the Secret's name says to be a database": (
        both(*(external(name, dataFrom=[{"extract": {"key": "shop/all"}}]) for name in ("orders", "billing"))),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "in the secret store shop/all",
    ),
    "one part of a secret store": (
        both(*(external(name, dataFrom=[{"find": {"path": "shop/db"}}]) for name in ("orders", "billing"))),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "in the secret store shop/db",
    ),
    "one entry of a secret store, of which a password is taken": (
        both(
            *(
                external(name, data=[{"secretKey": "password", "remoteRef": {"key": "shop/all", "property": "pass"}}])
                for name in ("orders", "billing")
            )
        ),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "in the secret store shop/all#pass",
    ),
    "one address in the template of an ExternalSecret": (
        both(
            *(
                external(
                    name,
                    target={
                        "template": {
                            "data": {"DATABASE_URL": "postgresql://{{ .user }}:{{ .pass }}@db.example.com/shop"}
                        }
                    },
                )
                for name in ("orders", "billing")
            )
        ),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the address db.example.com/shop",
    ),
    "all variables of one Secret": (
        both(
            *(
                overlay(
                    name,
                    "staging",
                    namespace="shop",
                    patch=yaml.safe_dump({"envFrom": [{"secretRef": {"name": "shop-db"}}]}),
                )
                for name in ("orders", "billing")
            )
        ),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the Secret shop/shop-db",
    ),
    "a volume of one Secret": (
        both(
            *(
                overlay(
                    name,
                    "staging",
                    namespace="shop",
                    patch=yaml.safe_dump({"volumes": [{"secret": {"secretName": "shop-db"}}]}),
                )
                for name in ("orders", "billing")
            )
        ),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the Secret shop/shop-db",
    ),
    "one address, by a pooler and by a variable of another name": (
        both(
            overlay("orders", "staging", patch=yaml.safe_dump({"name": "DATABASE_URL", "value": SHOP_DATABASE})),
            overlay(
                "billing",
                "staging",
                patch=yaml.safe_dump(
                    {"name": "ORDERS", "value": SHOP_DATABASE.replace("com/", "com:6432/") + "?sslmode=require"}
                ),
            ),
        ),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the address db.example.com/shop",
    ),
    "one address among several hosts": (
        both(
            overlay("orders", "staging", configMapGenerator=LITERAL),
            overlay("billing", "staging", patch="DATABASE_URL: postgresql:///shop?host=standby,DB.example.com\n"),
        ),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the address db.example.com/shop",
    ),
    "one address in a cluster, in full and in short": (
        both(
            overlay("orders", "staging", patch="DATABASE_URL: postgresql://db.data.svc.cluster.local/shop\n"),
            overlay("billing", "staging", namespace="data", patch="DATABASE_URL: postgresql://db/shop\n"),
        ),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the address db.data/shop",
    ),
    "one address in a file of variables": (
        lambda shop: [
            shop[name].files.update({"deploy/overlays/staging/database.env": f"# Ours\nDATABASE_URL={SHOP_DATABASE}\n"})
            for name in ("orders", "billing")
        ],
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the address db.example.com/shop",
    ),
    "one address in a Secret that is committed": (
        lambda shop: [
            shop[name].files.update({EXTERNAL: yaml.safe_dump({"kind": "Secret", "data": {"DATABASE_URL": ENCODED}})})
            for name in ("orders", "billing")
        ],
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the address db.example.com/shop",
    ),
    "one address in a base": (
        lambda shop: [
            shop[name].files.update({f"deploy/{where}.yaml": f"data: {{DATABASE_URL: '{SHOP_DATABASE}'}}\n"})
            for name, where in (("orders", "base/config"), ("billing", "ours/config"))
        ],
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the address db.example.com/shop",
    ),
    "one remote base": (
        both(
            *(
                overlay(name, "staging", resources=[f"https://git.example.com/shop//database?ref={name}"])
                for name in ("orders", "billing")
            )
        ),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the base https://git.example.com/shop//database",
    ),
    "one resource of the catalogue, by its type": (
        both(depend("shop", "orders", "billing"), lambda shop: shop["orders"].entities.append(DATABASE)),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the resource shop",
    ),
    "one Secret of two services in one namespace": (
        both(
            *(overlay(name, "staging", namespace="shop", patch=yaml.safe_dump(OTHER)) for name in ("orders", "billing"))
        ),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the Secret shop/database",
    ),
    "one resource that only its name says anything of": (
        depend("shop-database", "orders", "billing"),
        "map-database-shared",
        Level.ERROR,
        ("orders", "billing"),
        "the resource shop-database",
    ),
    "code with messages and no document": (
        lambda shop: shop["customers"].files.update({"src/customers/messaging/customers.py": "OUTGOING = [Event()]\n"}),
        "map-silent",
        Level.WARNING,
        ("customers",),
        "the document is missing",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_thing_wrong_is_found_and_nothing_else(tmp_path: Path, name: str) -> None:
    mutate, id_, level, services, says = MUTATIONS[name]
    broken = shop()
    mutate(broken)
    found = findings(drawn(tmp_path, broken))
    assert [(one.finding.id, one.finding.level) for one in found] == [(id_, level)], found
    (one,) = found
    assert says in one.finding.reason
    assert set(one.services) == set(services)
    assert one.services[0] == services[0] or id_ == "map-database-shared"
    assert one.finding.why
    assert one.finding.remedy


SOUND: dict[str, Mutation] = {
    "a service that tells and asks itself": both(
        publish("orders.order-kept.v1", body(order_id=TEXT)),
        lambda shop: shop["orders"].takes.update({"orders.order-kept.v1": body(other=TEXT)}),
        consume(orders="orders"),
    ),
    "a client of something outside": lambda shop: shop["orders"].files.update(
        client("settings.mailer_url", "orders/a.py")
    ),
    "a client of something that the code does not name": lambda shop: shop["orders"].files.update(
        client("url", "orders/a.py")
    ),
    "a bucket that two write to": both(
        depend("shop", "orders", "billing"), lambda shop: shop["orders"].entities.append(BUCKET)
    ),
    "two databases on one server": both(
        overlay("orders", "staging", configMapGenerator=LITERAL),
        overlay("billing", "staging", configMapGenerator=[{"literals": [f"DATABASE_URL={SHOP_DATABASE}2"]}]),
    ),
    "two databases behind sidecars": both(
        *(
            overlay(name, "staging", patch="DATABASE_URL: postgresql://127.0.0.1/app\n")
            for name in ("orders", "billing")
        )
    ),
    "two keys of one Secret": both(
        *(
            overlay(
                name,
                "staging",
                namespace="shop",
                patch=yaml.safe_dump(
                    {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "databases", "key": name}}}
                ),
            )
            for name in ("orders", "billing")
        )
    ),
    "an entry of a secret store that is for both, beside one that is not": both(
        *(
            external(name, dataFrom=[{"extract": {"key": f"{name}/database"}}, {"extract": {"key": "shop/telemetry"}}])
            for name in ("orders", "billing")
        )
    ),
    "an address that is filled in where it is deployed": both(
        *(
            overlay(name, "staging", namespace="shop", patch="DATABASE_URL: postgresql://$(HOST)/$(NAME)\n")
            for name in ("orders", "billing")
        )
    ),
    "Secrets of one name in two namespaces": both(
        *(overlay(name, "production", patches=[{"patch": yaml.safe_dump(OTHER)}]) for name in ("orders", "billing"))
    ),
    "a chain of two calls": consume(customers="printing"),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_fleet_has_no_finding(tmp_path: Path, name: str) -> None:
    fine = shop()
    SOUND[name](fine)
    assert findings(drawn(tmp_path, fine)) == []


def only(map_: Map) -> MapFinding:
    (found,) = findings(map_)
    return found


def test_the_page_lists_every_finding_and_a_test_provokes_each() -> None:
    code = "".join(file.read_text() for file in (ROOT / "fleet/map").glob("*.py"))
    ids = set(re.findall(r'"(map-[a-z]+(?:-[a-z]+)?)"', code))
    page = (ROOT / "docs/how-to/see-the-map.md").read_text()
    assert set(re.findall(r"^\| `(map-[a-z-]+)` \|", page, re.MULTILINE)) == ids
    # Other tests cover these findings. The first two are in test_map_blocked.py and test_map_uses.py.
    assert {id_ for _, id_, *_ in MUTATIONS.values()} | {
        "map-call-blocked",
        "map-call-unfit",
        "map-repeated",
        "map-unread",
    } == ids
    assert f"more than {('no', 'one', 'two', 'three')[LIMIT]} calls in a row" in page


def test_a_superseded_event_names_its_next_version(tmp_path: Path) -> None:
    moved = shop()
    moved["orders"].sends["orders.order-placed.v2"] = moved["orders"].sends.pop(PLACED)
    dangling, _ = findings(drawn(tmp_path, moved))
    assert dangling.finding.id == "map-event-unpublished"
    assert dangling.finding.remedy == "move to orders.order-placed.v2, or let orders support this version in addition"
    assert dangling.finding.line > 0


def test_a_circle_of_calls_with_any_number_of_services_is_one_finding(tmp_path: Path) -> None:
    knotted = shop()
    consume(orders="billing", customers="billing")(knotted)
    found = only(drawn(tmp_path, knotted))
    assert "in a circle, which also contains" in found.finding.reason
    assert set(found.services) == {"billing", "customers", "orders"}
    assert {edge.kind for edge in found.edges} == {Kind.CALL}


def test_how_many_calls_in_a_row_are_allowed_can_be_said(tmp_path: Path) -> None:
    deep = shop()
    consume(customers="printing", printing="orders")(deep)
    map_ = drawn(tmp_path, deep)
    assert findings(map_, 3) == []
    assert "3 calls in a row, where 1 are allowed" in findings(map_, 1)[0].finding.reason


def test_calls_between_services_are_read_from_the_catalogue_and_the_code(tmp_path: Path) -> None:
    calls = {edge.target: edge for edge in drawn(tmp_path, shop()).of(Kind.CALL)}
    seen = calls["customers"].seen
    assert seen is not None
    assert (seen.path, seen.line) == ("src/billing/api/customers.py", 5)
    assert calls["customers"].declared
    assert calls["orders"] == Edge(Kind.CALL, "billing", "orders", "orders")


def test_a_waiver_counts_until_its_last_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waived = shop()
    consume(orders="billing")(waived)
    waived["orders"].files["conventions.yml"] = (
        "waivers:\n  - id: map-call-cycle\n    reason: until invoices are events\n    owner: shop-team\n"
        "    approver: ana@platform\n    expires: 2027-03-01\n"
    )
    map_ = drawn(tmp_path, waived)
    monkeypatch.setattr(waivers_module, "today", lambda: date(2027, 3, 1))
    assert only(map_).finding.level is Level.WAIVED
    assert "until invoices are events (until 2027-03-01, ana@platform)" in only(map_).finding.reason
    monkeypatch.setattr(waivers_module, "today", lambda: date(2027, 3, 2))
    assert only(map_).finding.level is Level.ERROR
    # A policy lists the approvers, and the day from which the list counts.
    monkeypatch.setenv("FLEET_POLICY", str(tmp_path / "policy.toml"))
    (tmp_path / "policy.toml").write_text(
        '[waivers]\napprovers = "leo@platform"\nreviewers = "@acme/platform"\nfrom = 2027-02-28\n'
    )
    for day, level in ((date(2027, 2, 27), Level.WAIVED), (date(2027, 2, 28), Level.ERROR)):
        monkeypatch.setattr(waivers_module, "today", lambda day=day: day)
        assert only(map_).finding.level is level


@pytest.mark.parametrize(
    ("path", "content", "level"),
    [
        ("catalog-info.yaml", "", Level.WAIVED),
        ("catalog-info.yaml", "0" * 40, Level.ERROR),  # the file has changed since
        ("README.md", "absent", Level.ERROR),  # the finding is in another file
    ],
)
def test_a_waiver_for_one_file_is_for_findings_in_that_file_with_that_content(
    tmp_path: Path, path: str, content: str, level: Level
) -> None:
    waived = shop()
    consume(orders="billing")(waived)
    (tmp_path / "before").mkdir()
    written = waived["orders"].write(tmp_path / "before", "orders")
    content = content or git(written, "hash-object", "catalog-info.yaml").strip()
    waived["orders"].files["conventions.yml"] = (
        "waivers:\n  - id: map-call-cycle\n    reason: until invoices are events\n    owner: shop-team\n"
        f"    approver: ana@platform\n    expires: 2999-01-01\n    path: {path}\n    content: '{content}'\n"
    )
    assert only(drawn(tmp_path, waived)).finding.level is level


def test_no_password_is_kept_of_an_address(tmp_path: Path) -> None:
    careless = shop()
    overlay("orders", "staging", configMapGenerator=LITERAL)(careless)
    assert "secret@" not in json.dumps([one.to_json() for one in drawn(tmp_path, careless).services.values()])


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_service_that_cannot_be_read_is_told_and_stops_no_other(tmp_path: Path) -> None:
    broken = shop()
    broken["orders"].files["specs/asyncapi.json"] = "{"
    broken["customers"].files["deploy/base/deployment.yaml"] = "env: [1] # DATABASE_URL"
    broken["customers"].files["deploy/overlays/staging/a.yaml"] = JSON_PATCH
    map_ = reader.read_folders(written(tmp_path, broken))
    assert set(map_.services) == {"billing", "printing"}
    customers, orders, *rest = findings(map_)
    assert (orders.services, orders.finding.id, orders.finding.level) == (("orders",), "map-unread", Level.ERROR)
    assert "specs/asyncapi.json is not JSON" in orders.finding.reason
    assert (customers.services, customers.finding.id) == (("customers",), "map-unread")
    assert "a file has a structure that the map does not know" in customers.finding.reason
    assert {(one.finding.id, one.finding.level) for one in rest} == {
        ("map-event-unpublished", Level.WARNING),
        ("map-event-unheard", Level.WARNING),
        ("map-call-unknown", Level.WARNING),
    }


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_two_repositories_of_one_service_are_told(tmp_path: Path) -> None:
    folders = written(tmp_path, shop())
    copy = shop()["orders"].write(tmp_path / "copy", "orders")
    found = only(reader.read_folders([*folders, copy]))
    assert (found.services, found.finding.id) == (("orders",), "map-repeated")


def none_to_read(_: object, sources: list[reader.Source], *, jobs: int) -> Iterator[Any]:
    assert (sources, jobs > 0) == ([], True), "read again"
    return iter(())


def for_ever(_: Service) -> Facts:
    while True:
        pass


def never_read(source: reader.Source) -> object:
    """Attempt a read that never ends. A process of its own runs this function, so the replacement stays there."""
    reader.facts = for_ever
    return reader.attempt_facts(source)


@pytest.mark.slow
def test_commits_of_bare_clones_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    members = []
    for name, one in shop().items():
        subprocess.run(
            ["git", "clone", "--quiet", "--bare", one.write(tmp_path / name, name), tmp_path / f"{name}.git"],
            check=True,
        )
        members.append(Member(name, str(tmp_path / f"{name}.git"), is_local=True))
    first = reader.read_members(members)
    assert first.edges == reader.read_folders([tmp_path / name for name in shop()]).edges
    with monkeypatch.context() as patch:
        patch.setattr(reader, "in_processes", none_to_read)
        assert reader.read_members(members).services == first.services
        standings = [
            Standing(one.name, one.address, commit=git(Path(one.address), "rev-parse", "HEAD").strip())
            for one in members
        ]
        assert reader.read_standings(members, standings).services == first.services
    gone = Member("gone", str(tmp_path / "gone"), is_local=True)
    assert "there is no folder" in reader.read_members([*members, gone]).unread["gone"]
    unreadable = [*standings, Standing("gone", gone.address, unreadable="no")]
    assert reader.read_standings([*members, gone], unreadable).unread == {"gone": "no"}


@pytest.mark.slow
def test_a_commit_of_one_repository_says_nothing_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One commit id may stand for different files in two local repositories, because Git does not check."""
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    first, *_ = written(tmp_path, shop())
    second = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", first, second], check=True)
    read: list[Path] = []
    in_processes = reader.in_processes

    def noted(work: Any, sources: list[reader.Source], *, jobs: int) -> Any:
        read.extend(source.repository for source in sources)
        return in_processes(work, sources, jobs=jobs)

    monkeypatch.setattr(reader, "in_processes", noted)
    for folder in (first, second, second):
        reader.read_members([Member("one", str(folder), is_local=True)])
    assert read == [first, second]


def test_a_service_that_status_could_not_read_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    member, commit = committed(tmp_path)
    monkeypatch.setattr(reader, "in_processes", none_to_read)
    map_ = reader.read_standings([member], [Standing("orders", member.address, commit=commit, unreadable="too much")])
    assert (map_.services, map_.unread) == ({}, {"orders": "too much"})


def test_facts_that_are_far_too_large_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(reader, "MOST_FACTS_BYTES", 100, raising=False)
    member, commit = committed(tmp_path)
    with pytest.raises(
        LimitExceeded, match=r"the facts for the map have more than .*: make the schemas in specs/ smaller"
    ):
        reader.read_facts(Path(member.address), commit, Service(Path(member.address), commit, commit))
    assert sum(file.stat().st_size for file in (tmp_path / "cache/facts").rglob("*.json")) < 1000
    monkeypatch.setattr(reader, "in_processes", none_to_read)
    map_ = reader.read_standings([member], [Standing("orders", member.address, commit=commit)])
    assert "make the schemas in specs/ smaller" in map_.unread["orders"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_commit_that_takes_too_long_to_read_is_given_up_and_not_tried_again_under_that_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    member, commit = committed(tmp_path)
    told = "reading the service for the map takes more than 0.2 seconds of computing, and was given up"
    told += " (FLEET_LIMIT_SECONDS sets another limit)"
    with monkeypatch.context() as patch:
        patch.setattr(reader, "attempt_facts", never_read)
        assert reader.read_members([member]).unread == {"orders": told}
        assert reader.read_folders([Path(member.address)]).unread == {"orders": told}
    assert reader.read_standings([member], [Standing("orders", member.address, commit=commit)]).unread == {
        "orders": told
    }
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "60")
    assert reader.read_members([member]).unread == {}


@pytest.mark.timeout(60)
def test_schemas_that_take_too_long_to_compare_are_a_warning_for_each_message_of_the_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = shop()
    map_ = drawn(tmp_path, services)
    compare = message_findings.find_unmet

    def never_compared(expected: Any, sent: Any) -> Any:
        while "note" in sent["properties"]:
            pass
        return compare(expected, sent)

    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    monkeypatch.setattr(message_findings, "find_unmet", never_compared)
    (found,) = (one for one in findings(map_) if one.finding.id == "map-event-unfit")
    assert found.finding.level is Level.WARNING
    assert (
        "comparing the schemas of the messages of orders takes more than 0.2 seconds of computing, and was given up"
        in found.finding.reason
    )


def committed(folder: Path) -> tuple[Member, str]:
    """Make a service with a commit, and return the commit's id too."""
    name, one = next(iter(shop().items()))
    service = one.write(folder / "orders", name)
    return Member("orders", str(service), is_local=True), git(service, "rev-parse", "HEAD").strip()


def test_the_surroundings_of_a_service_are_its_own_edges(tmp_path: Path) -> None:
    map_ = drawn(tmp_path, shop())
    assert set(map_.around("printing").nodes) == {"printing", "billing"}
    assert len(map_.around("printing").edges) == 1
    with pytest.raises(
        FleetError, match="there is no shipping on the map: it has billing, customers, orders, printing"
    ):
        map_.around("shipping")


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_the_command_prints_the_map_in_each_format_and_fails_on_errors(tmp_path: Path) -> None:
    folders = [str(folder) for folder in written(tmp_path, shop())]

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["map", *folders, *arguments])
        return result.exit_code, result.stdout

    status, table = run()
    assert status == 0
    assert "4 services, 2 calls, 2 events and 1 job between them; no findings" in " ".join(table.split())
    status, text = run("--format", "json")
    assert (status, len(json.loads(text)["edges"])) == (0, 5)
    assert run("--format", "mermaid")[1].startswith("flowchart LR\n")
    assert run("--calls", "1", "--around", "printing")[0] == 0
    git(tmp_path / "orders", "rm", "--quiet", "-r", "specs")
    assert run("--format", "svg", "--output", str(tmp_path / "map.svg")) == (1, "")
    assert (tmp_path / "map.svg").read_text().startswith("<svg ")
    assert run("--format", "html")[1].startswith("<!doctype html>")


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_generated_services_are_on_the_map_as_in_their_own_documents(born: Born) -> None:
    """Services of the example: notifications consumes the reservations that inventory publishes."""
    services = {}
    for name in ("inventory", "notifications"):
        answers = yaml.safe_load((SHOP / name / "answers.yml").read_text())
        answers |= {"domain": f"domain-of-{name}", "owner": f"team-of-{name}"}
        services[name] = service = born(**answers)
        shutil.copytree(SHOP / name, service, dirs_exist_ok=True)
        write_documents(service)
    map_ = reader.read_folders(services.values())
    assert [(one.domain, one.owner) for one in map_.services.values()] == [
        (f"domain-of-{name}", f"team-of-{name}") for name in services
    ]
    known = {(edge.source, edge.target, edge.name) for edge in map_.edges if not edge.is_open}
    heard = {"inventory.stock-reserved.v1", "inventory.stock-missing.v1"}
    assert known == {("inventory", "notifications", event) for event in heard}
    # No service consumes the events of notifications yet, and orders, whose event is consumed, is not on the map.
    expected = {("map-event-unheard", Level.WARNING), ("map-event-unpublished", Level.WARNING)}
    assert {(one.finding.id, one.finding.level) for one in findings(map_)} == expected

    contract = services["inventory"] / "src/inventory/messaging/reservations.py"
    text = contract.read_text()
    assert "    customer_id: fields.Identifier\n" in text, (
        "inventory no longer says whose order it is: mend this mutation"
    )
    contract.write_text(text.replace("    customer_id: fields.Identifier\n", ""))
    write_documents(services["inventory"])
    broken = findings(reader.read_folders(services.values()))[0]
    assert (broken.services, broken.finding.id) == (("inventory", "notifications"), "map-event-unfit")
    assert "customer_id is required, and is not sent" in broken.finding.reason


def write_documents(service: Path) -> None:
    """Run `make specs` with the packages of this environment."""
    command = [sys.executable, "-m", service.name, "specs"]
    subprocess.run(command, cwd=service, env=service_environment(PYTHONPATH="src"), check=True)
