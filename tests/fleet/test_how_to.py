"""The code of docs/how-to is written into a service, page after page, and passes every gate."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from chassis.database import metadata_for, migrate
from chassis.dev import embedded

from fleet.check.checks import check_conventions
from fleet.conventions import conventions
from fleet.map.findings import findings as map_findings
from fleet.map.model import Kind
from fleet.map.reader import read_folders
from fleet.service.service import Service
from fleet.update.update import Options, update
from tests.chassis.tiny import main as tiny
from tests.fleet.services import Born, Installed, commit
from tests.support.commands import git, make, service_environment
from tests.support.how_to import (
    PAGES,
    Step,
    add,
    appended,
    blocks,
    both,
    edit,
    follow,
    import_missing,
    instead_of,
    into,
    listed,
    new,
    shown,
    typed,
    valid_for_kubernetes,
    written,
)
from tests.support.object_store import KEY, KEY_ID, object_store
from tests.support.query import ask

# The reasons why the commands and code of a page are not run here.
NOT_RUN = {
    "add-a-convention.md": "a package of an organisation; tests/fleet/conventions/test_conventions.py loads one",
    "add-a-field.md": "has no code; the tutorial does it, and tests/service/test_tutorial.py runs that",
    "approve-an-exception.md": "is an entry of a file; tests/fleet/service/test_waivers.py has each kind",
    "change-an-answer.md": "is an update; tests/fleet/update/test_aggregates.py and test_styles.py run it",
    "choose-a-broker.md": "a comparison",
    "connect-to-postgresql.md": "addresses; tests/chassis/settings/test_addresses.py tries each",
    "debug-on-a-laptop.md": "needs a terminal; tests/service/test_first_run.py types into one",
    "deploy-with-github.md": "needs GitHub; tests/delivery/test_pipelines.py runs the jobs",
    "deploy-with-gitlab.md": "needs GitLab; tests/delivery/test_pipelines.py runs the jobs",
    "handle-parked-messages.md": "needs a cluster; tests/chassis/messaging/test_parked.py runs the commands",
    "limit-a-service-at-the-broker.md": "permissions; tests/chassis/brokers/test_permissions.py runs a service with them",
    "prepare-a-namespace.md": "needs a cluster; tests/delivery/test_kubernetes.py judges the manifests",
    "publish-the-chassis.md": "needs a package index; tests/delivery/test_published_chassis.py has one",
    "read-a-private-template.md": "needs a forge; tests/delivery/test_pipelines.py signs in to a private one",
    "read-a-trace.md": "needs a trace viewer; tests/service/test_observability.py reads the traces",
    "release-the-template.md": "is about the template; tests/fleet/template_history.py makes releases",
    "renovate.md": "needs a forge; tests/delivery/test_pipelines.py judges the configuration",
    "review-platform-files.md": "needs a forge; tests/fleet/conventions/test_ownership.py judges the file",
    "run-tests.md": "runs the same tests as every service's `make test`",
    "scale-the-workers.md": "needs a cluster; tests/delivery/test_kubernetes.py judges the manifests",
    "see-drift.md": "needs a fleet; tests/fleet/check/test_drift.py runs the command",
    "see-the-fleet.md": "needs a fleet; tests/fleet runs the commands",
    "see-the-map.md": "needs a fleet; tests/fleet runs the commands",
    "system-postgresql.md": "installs packages of the operating system",
    "take-a-new-python.md": "is about the template, and installs a Python",
    "turn-identity-on.md": "is an update; tests/template/test_messaging_turned_on.py runs it and takes the steps",
    "turn-messaging-on.md": "is an update; tests/template/test_messaging_turned_on.py runs it",
    "update-all-services.md": "needs a fleet; tests/fleet/update/test_update_all.py runs the command",
    "update-with-fleet.md": "needs a fleet; tests/fleet/update/test_update.py runs the command",
    "update.md": "is an update; tests/template/test_messaging_turned_on.py runs it",
    "use-an-identity-provider.md": "needs four providers; tests/chassis/identity has a fifth, and tokens of all their forms",
    "use-debezium.md": "needs Debezium",
    "work-with-coding-tools.md": "is about editors; tests/repository/test_skill.py judges the skill",
    "use-an-editor.md": "needs an editor; tests/template/test_editors.py judges the files, tests/delivery builds the container",
    "watch-a-service.md": "needs Prometheus; tests/service/test_observability.py judges the rules",
}

DOMAIN, USECASES, API = (f"src/billing/{layer}/invoices.py" for layer in ("domain", "usecases", "api"))
PERSISTENCE, QUERIES = "src/billing/persistence/invoices.py", "src/billing/persistence/invoice_queries.py"
MESSAGES, MAIN = "src/billing/messaging/invoices.py", "src/billing/main.py"
SETTINGS, CONFTEST, RUNBOOK = "src/billing/settings.py", "tests/conftest.py", "docs/runbook.md"
PRODUCTION, STAGING = (f"deploy/overlays/{name}/kustomization.yaml" for name in ("production", "staging"))
TESTS = "tests/messaging/test_invoices.py"
BUILDERS = "tests/builders/invoices.py"
SOME_ID = 'SOME_ID = UUID("0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d")\n'
VERSION = '    sa.CheckConstraint("version >= 1"'
Node = dict[str, Any]
WITHDRAWN = "orders.order-withdrawn.v1"
AGGREGATES = """
Invoice: {number: string(40), customer_id: uuid, total: money, due_on: date?, note: text?}
Account: {status: none, name: string(120)}
"""
SETTINGS_LINE = "    settings=Settings,\n"
ROW = "| `DATABASE_POOL_SIZE`"


def in_the_table(service: Path, text: str) -> None:
    """Add the lines of `sa.Table(..., …)` to the table."""
    lines = text.partition("    ...,\n")[2].rpartition(")\n")[0]
    edit(PERSISTENCE, VERSION, f"{lines}{VERSION}")(service, "")


def add_a_route(service: Path) -> None:
    follow(
        service,
        "add-a-route.md",
        both(
            add(DOMAIN), edit(DOMAIN, '    ISSUED = "issued"\n', '    ISSUED = "issued"\n    CANCELLED = "cancelled"\n')
        ),
        both(
            into(DOMAIN, "Invoice"),
            edit("src/billing/persistence/invoices.py", "('draft', 'issued')", "('draft', 'issued', 'cancelled')"),
        ),
        typed,
        written("0003_allow_cancelled.py"),
        written("0004_validate_allow_cancelled.py"),
        add(USECASES),
        add(API),
        add("tests/domain/test_invoices.py"),
        add("tests/api/test_invoices.py"),
    )


def from_a_module_to_a_service(service: Path) -> None:
    def refused(service: Path, text: str) -> None:
        path = service / USECASES
        before = path.read_text()
        path.write_text(f"{before}\nimport billing.persistence.account_queries\n")
        expected = re.sub(r" \(l\.\d+\)", "", text.strip())
        assert expected in (done := make(service, "layers", check=False)).stdout + done.stderr
        path.write_text(before)
        make(service, "layers")

    def copied(service: Path, text: str) -> None:
        folder = service.parent / "accounts"
        for path in ("src/accounts/domain/accounts.py", "tests/builders/accounts.py"):
            (folder / path).unlink()
        subprocess.run(["sh", "-e", "-c", text.replace("make format", "")], cwd=folder, check=True)
        for command in (["check", "--fix", "--quiet"], ["format", "--quiet"]):
            subprocess.run([Path(sys.executable).with_name("ruff"), *command, "."], cwd=folder, check=True)
        # the copied files are as in the template
        assert git(folder, "status", "--porcelain") == ""

    follow(
        service,
        "from-a-module-to-a-service.md",
        shown,  # the service has the answer already
        refused,
        new("src/billing/usecases/billed_accounts.py"),
        new("tests/usecases/test_billed_accounts.py"),
        shown,  # the fixture makes the other service
        copied,
        shown,  # commands between two databases
    )


def publish_an_event(service: Path) -> None:
    follow(
        service,
        "publish-an-event.md",
        add(DOMAIN, above="Invoice"),
        into(DOMAIN, "Invoice"),
        instead_of(USECASES, "    invoice.cancel(at=now)\n    await repository.save(invoice)\n"),
        add(MESSAGES, above="OUTGOING"),
        listed(MESSAGES),
        new("tests/messaging/golden/invoice_cancelled_v1.json"),
        lambda service, text: edit(TESTS, '_issued_v1.json",\n', f'_issued_v1.json",\n{text}')(service, ""),
        add(TESTS),
    )


def listen_to_an_event(service: Path) -> None:
    fields: Node = {"invoice_id": {"type": "string", "format": "uuid"}, "reason": {"type": "string"}}
    fields["occurred_at"] = {"type": "string", "format": "date-time"}
    published(service.parent / "orders", WITHDRAWN, {"type": "object", "properties": fields, "required": [*fields]})
    module, test = "src/billing/messaging/order_withdrawn.py", "tests/messaging/test_order_withdrawn.py"
    stub = r"async def test_order_withdrawn_is_not_lost_.*?times=2\)\n"

    def already_in(path: str) -> Step:
        return lambda service, text: edit(path, text, text)(service, "")

    follow(
        service,
        "listen-to-an-event.md",
        by_fleet,
        already_in(module),
        add(module),
        typed,
        both(changed(test, lambda text: re.sub(stub, "", text, flags=re.DOTALL)), add(test)),
        shown,  # the URL belongs to `make dev` of another service
    )


def published(folder: Path, name: str, payload: Node) -> None:
    """Commit the document of a service that publishes an event."""
    message = {"name": name, "tags": [{"name": "event"}], "payload": payload}
    channel = {"address": name, "messages": {name: {"$ref": f"#/components/messages/{name}"}}}
    send = {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
    send["messages"] = [{"$ref": f"#/channels/{name}/messages/{name}"}]
    document = {"asyncapi": "3.1.0", "channels": {name: channel}, "operations": {"send": send}}
    document["components"] = {"messages": {name: message}, "schemas": {}}
    (folder / "specs/messages").mkdir(parents=True)
    (folder / "specs/asyncapi.json").write_text(json.dumps(document))
    (folder / f"specs/messages/{name}.json").write_text(json.dumps(payload))
    (folder / ".copier-answers.yml").write_text(f"_commit: v1.0.0\n_src_path: nowhere\nservice_name: {folder.name}\n")
    git(folder, "init", "--quiet")
    commit(folder)


def start_a_new_consumer(service: Path) -> None:
    golden = "tests/messaging/golden/customer_{}_v1.json"
    follow(
        service,
        "start-a-new-consumer.md",
        shown,  # an answer, which the variants in tests/support/answers.py have
        shown,  # a command on the cluster; tests/chassis/messaging/test_republish.py runs it
        new("src/billing/persistence/customer_copies.py"),
        typed,
        new("src/billing/messaging/customers.py"),
        new(golden.format("saved")),
        new(golden.format("deleted")),
        new("tests/messaging/test_customers.py"),
    )


def add_a_setting(service: Path) -> None:
    literals = "    behavior: merge\n    literals:\n"

    def in_config_map(service: Path, text: str) -> None:
        line = text.splitlines(keepends=True)[-1]
        for overlay in (PRODUCTION, STAGING):
            edit(overlay, literals, f"{literals}{line}")(service, "")

    def in_patches(service: Path, text: str) -> None:
        for overlay in (PRODUCTION, STAGING):
            edit(overlay, "\npatches:\n", f"\n{text}")(service, "")

    follow(
        service,
        "add-a-setting.md",
        lambda service, text: (service / SETTINGS).write_text(text),
        shown,  # the output of a service that lacks the setting
        shown,  # a dependency that reads another setting
        new("local.mk"),
        new(CONFTEST),
        in_config_map,
        lambda service, text: edit(RUNBOOK, ROW, f"{text}{ROW}")(service, ""),
        both(
            appended(SETTINGS),
            edit(CONFTEST, '"customers_url"', '"mailer_token": "secret", "customers_url"'),
        ),
        shown,  # a command on the cluster
        in_patches,
        lambda service, text: edit(RUNBOOK, ROW, f"{text}{ROW}")(service, ""),
    )


def repeat_a_request(service: Path) -> None:
    def in_main(service: Path, text: str) -> None:
        # A new service has the line already, so take it out before.
        line = f"    {text.partition('..., ')[2].rpartition(')')[0]},\n"
        edit(MAIN, line, "")(service, "")
        edit(MAIN, SETTINGS_LINE, f"{SETTINGS_LINE}{line}")(service, "")

    follow(service, "repeat-a-request.md", shown, in_main, add("tests/api/test_invoices.py"))


def with_policy(service: Path, text: str) -> None:
    """Give the settings the further base class of the block."""
    imported, _, declared = text.strip().partition("\n\n\n")
    edit(SETTINGS, "class Settings(OidcSettings):", declared)(service, "")
    edit(SETTINGS, "from pydantic", f"{imported}\nfrom pydantic")(service, "")


def call_another_service(service: Path) -> None:
    peers = ("deploy/overlays/production/peers.yaml", "deploy/overlays/staging/peers.yaml")
    follow(
        service,
        "call-another-service.md",
        with_policy,
        new("src/billing/api/customers.py"),
        new("src/billing/usecases/customers.py"),
        new("tests/usecases/test_customers.py"),
        add(CONFTEST),
        shown,  # only for a service with identity; tests/chassis/identity/test_own_tokens.py sends tokens
        shown,  # commands in two terminals; tests/chassis/dev/test_issuer.py shares the issuer
        appended("catalog-info.yaml"),
        appended(*peers),
        shown,  # code of the other service
    )


def by_fleet(service: Path, text: str) -> None:
    """Run the commands of the block by the `fleet` of this repository."""
    typed(service, text.replace("fleet ", f"{Path(sys.executable).with_name('fleet')} "))


def call_with_types(service: Path) -> None:
    identity = {"name": "customer_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    fields = {"id": {"type": "string", "format": "uuid"}, "name": {"type": "string"}}
    customer = {"type": "object", "required": ["id"], "properties": fields}
    found = {"description": "", "content": {"application/json": {"schema": customer}}}
    answers = {"200": found, "404": {"description": "Not Found"}}
    get = {"operationId": "get_customer", "parameters": [identity], "responses": answers}
    document = {"openapi": "3.1.0", "info": {}, "paths": {"/v1/customers/{customer_id}": {"get": get}}}
    neighbour = service.parent / "customers/specs/openapi.json"
    neighbour.parent.mkdir(parents=True)
    neighbour.write_text(json.dumps(document))

    follow(
        service,
        "call-with-types.md",
        by_fleet,
        add("src/billing/usecases/customers.py"),
        add("tests/usecases/test_customers.py"),
        add("src/billing/usecases/customers.py"),
        add("tests/usecases/test_customers.py"),
        by_fleet,
    )


def send_a_job(service: Path) -> None:
    # The page assumes that the setting exists.
    for path, old, new_ in (
        (SETTINGS, "    customers_url", "    mailer_url: HttpUrl\n    customers_url"),
        (CONFTEST, '"customers_url"', '"mailer_url": "http://mailer", "customers_url"'),
        (RUNBOOK, ROW, f"| `MAILER_URL` | none: required | where the mailer is |\n{ROW}"),
        (PRODUCTION, "      - CUSTOMERS_URL", "      - MAILER_URL=http://mailer\n      - CUSTOMERS_URL"),
        (STAGING, "      - CUSTOMERS_URL", "      - MAILER_URL=http://mailer\n      - CUSTOMERS_URL"),
    ):
        edit(path, old, new_)(service, "")
    follow(
        service,
        "send-a-job.md",
        new("src/billing/usecases/invoice_mails.py"),
        new("src/billing/messaging/invoice_mails.py"),
        instead_of(USECASES, "    await uow.publish(invoice.issue(at=now))\n"),
        shown,  # a job for another service
        new("tests/messaging/golden/mail_invoice_v1.json"),
        new("tests/messaging/test_invoice_mails.py"),
    )


def write_a_saga(service: Path) -> None:
    golden = "tests/messaging/golden/{}_v1.json"
    follow(
        service,
        "write-a-saga.md",
        shown,  # how an existing service gets sagas
        new("src/billing/usecases/collections.py"),
        new("src/billing/sagas/collect_invoice.py"),
        new("src/billing/messaging/payments.py"),
        instead_of(USECASES, "    await uow.publish(invoice.issue(at=now))\n"),
        both(new(golden.format("charge_card")), new(golden.format("refund_card"))),
        new(golden.format("card_charged")),
        new(golden.format("card_refused")),
        new("tests/sagas/test_collect_invoice.py"),
        shown,  # an example of a job that calls a neighbour
        shown,  # an example of a later version of the saga
    )


def work_at_fixed_times(service: Path) -> None:
    follow(
        service,
        "work-at-fixed-times.md",
        new("src/billing/usecases/old_drafts.py"),
        new("src/billing/persistence/old_drafts.py"),
        new("src/billing/messaging/old_drafts.py"),
        new("tests/messaging/golden/delete_old_drafts_v1.json"),
        new("tests/messaging/test_old_drafts.py"),
        new("src/billing/commands.py"),
        both(
            lambda service, text: edit(MAIN, SETTINGS_LINE, SETTINGS_LINE + text.splitlines(keepends=True)[2])(
                service, ""
            ),
            edit(MAIN, "import api, messaging", "import api, commands, messaging"),
        ),
        both(
            new("deploy/overlays/production/delete-old-drafts.yaml"),
            valid_for_kubernetes,
            edit(PRODUCTION, "  - peers.yaml", "  - delete-old-drafts.yaml\n  - peers.yaml"),
        ),
    )


def do_long_work(service: Path) -> None:
    follow(
        service,
        "do-long-work.md",
        new("src/billing/domain/statements.py"),
        new("src/billing/usecases/statements.py"),
        new("src/billing/messaging/statements.py"),
        new("tests/messaging/golden/render_statement_v1.json"),
        new("tests/messaging/test_statements.py"),
        both(
            new("deploy/overlays/production/worker-statements.yaml"),
            valid_for_kubernetes,
            edit(PRODUCTION, "  - peers.yaml", "  - worker-statements.yaml\n  - peers.yaml"),
        ),
        lambda service, text: edit(PRODUCTION, "\npatches:\n", f"\n{text}")(service, ""),
    )
    # A process of its own runs the module of the command line under another name.
    module = "import runpy; runpy.run_path('src/billing/__main__.py', run_name='__mp_main__')"
    typed(service, f'.venv/bin/python -c "{module}"')


def stream_and_upload(service: Path) -> None:
    follow(
        service,
        "stream-and-upload.md",
        new("src/billing/api/invoice_changes.py"),
        new("tests/api/test_invoice_changes.py"),
        new("src/billing/api/invoice_exports.py"),
        new("tests/api/test_invoice_exports.py"),
        add(API),
        add("tests/api/test_invoices.py"),
        new("src/billing/api/invoice_recordings.py"),
        new("tests/api/test_invoice_recordings.py"),
    )


def store_files(service: Path) -> None:
    names = ("SCANS_URL", "SCANS_KEY_ID", "SCANS_KEY")
    values = '"scans_url": "http://store", "scans_key_id": "key", "scans_key": "secret", "customers_url"'
    rows = "".join(f"| `{name}` | none: required | of the object store |\n" for name in names)
    literals = "".join(f"      - {name}=http://store\n" for name in names[:2])
    secret = """\
  - target:
      kind: Deployment
    patch: |
      - op: add
        path: /spec/template/spec/containers/0/env/-
        value: {name: SCANS_KEY, valueFrom: {secretKeyRef: {name: billing-scans, key: SCANS_KEY}}}
"""
    edits = [edit(CONFTEST, '"customers_url"', values), edit(RUNBOOK, ROW, f"{rows}{ROW}")]
    for overlay in (PRODUCTION, STAGING):
        edits += [
            edit(overlay, "      - CUSTOMERS_URL", f"{literals}      - CUSTOMERS_URL"),
            edit(overlay, "\npatches:\n", f"\npatches:\n{secret}"),
        ]
    typed(service, "UV_PYTHON=.venv/bin/python PATH=.tools/bin:$PATH uv add --quiet boto3")
    follow(
        service,
        "store-files.md",
        both(appended(SETTINGS), *edits),
        new("src/billing/persistence/scans.py"),
        add(MAIN),
        new("src/billing/api/invoice_scans.py"),
        new("tests/api/test_invoice_scans.py"),
    )


def call_from_a_browser(service: Path) -> None:
    def around(service: Path, text: str) -> None:
        middleware = text[text.index("    app.add_middleware(") : text.index("    return app\n")]
        edit(MAIN, "    return app\n", f"{middleware}    return app\n")(service, "")

    follow(
        service,
        "call-from-a-browser.md",
        appended(SETTINGS),
        before(RUNBOOK, ROW),
        both(before(PRODUCTION, "      - CUSTOMERS_URL"), before(STAGING, "      - CUSTOMERS_URL")),
        around,
        new("tests/api/test_origins.py"),
    )


def exchange_a_token(service: Path) -> None:
    follow(
        service,
        "exchange-a-token.md",
        new("src/billing/usecases/token_exchange.py"),
        shown,  # an example of two lines in a route
        new("tests/usecases/test_token_exchange.py"),
    )


SIGN = """
from uuid import UUID
from billing.persistence.scans import ScanStore
store = ScanStore(url="{}", bucket="billing-scans", key_id="{}", key="{}")
print(store.upload_url(UUID(int=1), size_bytes=5, media_type="application/pdf"))
print(store.download_url(UUID(int=1)))
"""


def move_a_file(service: Path, folder: Path) -> None:
    """Let a real store judge the URLs that the service signs."""
    (folder / "billing-scans").mkdir()
    with object_store(folder) as url:
        code = SIGN.format(url, KEY_ID, KEY)
        done = subprocess.run([service / ".venv/bin/python", "-c", code], capture_output=True, text=True, check=True)
        upload, download = done.stdout.split()
        pdf = {"Content-Type": "application/pdf"}
        refused = [httpx2.put(upload, content=b"longer", headers=pdf), httpx2.put(upload, content=b"short")]
        assert [answer.status_code for answer in refused] == [403, 403]
        assert httpx2.put(upload, content=b"scans", headers=pdf).status_code == 200
        assert httpx2.get(download).content == b"scans"
        assert not httpx2.get(download.partition("?")[0]).is_success


def change_a_contract(service: Path) -> None:
    golden = "tests/messaging/golden/invoice_issued_v1.json"
    happened = "    note: str | None\n    version: int\n"
    agreed = "    note: Annotated[fields.Text, Field(max_length=10_000)] | None\n    version"
    follow(
        service,
        "change-a-contract.md",
        lambda service, text: edit(DOMAIN, happened, f"{text}{happened}")(service, ""),
        lambda service, text: edit(MESSAGES, agreed, f"{text}{agreed}")(service, ""),
        lambda service, text: edit(golden, '  "version"', f'{text}  "version"')(service, ""),
        shown,  # the output of the gate
        add(DOMAIN),
        into(DOMAIN, "Invoice"),
        add(MESSAGES, above="OUTGOING"),
        listed(MESSAGES),
        new("tests/messaging/golden/invoice_issued_v2.json"),
        lambda service, text: edit(TESTS, '_issued_v1.json",\n', f'_issued_v1.json",\n{text}')(service, ""),
        shown,  # a line of a later release
    )


def filter_sort_and_search(service: Path) -> None:
    follow(
        service,
        "filter-sort-and-search.md",
        add(PERSISTENCE, above="invoices"),
        both(in_the_table, migrated("index the search")),
        add(QUERIES, above="find_invoice"),
        add(API, above="get_invoice"),
        new("tests/api/test_invoice_search.py"),
    )


def let_the_database_give_a_value(service: Path) -> None:
    shown_in = "    note: NoteValue | None\n    status: InvoiceStatus\n"
    follow(
        service,
        "let-the-database-give-a-value.md",
        add(PERSISTENCE, above="invoices"),
        in_the_table,
        both(migrated("number invoices"), written("*_number_invoices.py")),
        both(
            add(PERSISTENCE),
            edit(
                PERSISTENCE, '        note=row["note"],\n', '        note=row["note"],\n        serial=row["serial"],\n'
            ),
            edit(DOMAIN, "    version: int = 1\n", "    serial: int | None = None\n    version: int = 1\n"),
            edit(API, shown_in, f"{shown_in}    serial: fields.Integer | None\n"),
        ),
        into(PERSISTENCE, "InvoiceRepository"),
        new("src/billing/persistence/invoice_serials.py"),
        new("src/billing/usecases/invoice_serials.py"),
        lambda service, text: edit(MAIN, "commands={", re.findall(r"(commands={.*)}", text)[0] + ", ")(service, ""),
        new("tests/usecases/test_invoice_serials.py"),
    )


def changed(path: str, change: Callable[[str], str]) -> Step:
    """Make a step for edits of a file that the page describes in words."""

    def step(service: Path, _: str) -> None:
        before = (service / path).read_text()
        after = change(before)
        assert after != before, f"{path} stays as it is"
        (service / path).write_text(after)

    return step


def migrated(message: str) -> Step:
    """Make a step that runs `make migration`, which writes all of the migration."""

    def step(service: Path, _: str) -> None:
        import_missing(service)
        make(service, "migration", f"m={message}")

    return step


def record_who_changed_what(service: Path) -> None:
    def live(text: str) -> str:
        return text.replace("sa.select(invoices)", "LIVE")

    def recording(text: str) -> str:
        text = re.sub(
            r"(?<=        )return (from_row\(row\))(?=\n\n    async def save)", r"return self._remembered(\1)", text
        )
        text = text.replace(
            '        "version": invoice.version,\n',
            '        "deleted_at": None,\n        "version": invoice.version,\n',
        )
        record = "        await self._record(invoice)\n"
        text = re.sub(r"    async def add\(.*?(?=\n    async def )", rf"\g<0>{record}", text, flags=re.DOTALL)
        return re.sub(r"    async def save\(.*?(?=\n    async def )", rf"\g<0>{record}", text, flags=re.DOTALL)

    follow(
        service,
        "record-who-changed-what.md",
        new("src/billing/persistence/invoice_history.py"),
        both(changed(PERSISTENCE, live), changed(QUERIES, live), in_the_table),
        add(PERSISTENCE, above="_BY_ID"),
        instead_of(PERSISTENCE, "_DELETE = Statement(sa.delete(invoices).where(_BY_ID))\n"),
        into(PERSISTENCE, "InvoiceRepository"),
        into(PERSISTENCE, "InvoiceRepository"),
        both(into(PERSISTENCE, "InvoiceRepository"), changed(PERSISTENCE, recording)),
        both(into(PERSISTENCE, "InvoiceRepository"), migrated("record changes")),
        add(API, above="get_invoice"),
        new("tests/api/test_invoice_history.py"),
    )


def erase_a_persons_data(service: Path) -> None:
    created = "    invoice = Invoice(\n        id=command.invoice_id,"

    def documented(text: str) -> str:
        [old] = re.findall(r"^@router\.post\(\s*\"\",.*?\)\n(?=@scopes)", text, re.MULTILINE | re.DOTALL)
        named = old.replace("problems(", "problems(CustomerErased, ")
        return text.replace(
            old, named if named != old else f"{old[:-2].rstrip().rstrip(',')}, responses=problems(CustomerErased))\n"
        )

    follow(
        service,
        "erase-a-persons-data.md",
        both(new("src/billing/persistence/erased_customers.py"), migrated("remember erased customers")),
        new("src/billing/domain/erased_customers.py"),
        both(
            new("src/billing/usecases/erased_customers.py"),
            edit(USECASES, created, f"    await refuse_erased(command.customer_id, uow)\n{created}"),
            changed(API, documented),
        ),
        new("src/billing/messaging/erased_customers.py"),
        new("tests/messaging/golden/customer_erased_v1.json"),
        new("tests/messaging/test_erased_customers.py"),
    )


def decorated(path: str, method: str) -> Step:
    """Make a step that replaces the first decorator of a route with this method."""

    def step(service: Path, text: str) -> None:
        decorator = rf"^@router\.{method}\(.*?\)\n(?=@scopes)"
        old = re.search(decorator, (service / path).read_text(), re.MULTILINE | re.DOTALL)
        assert old
        edit(path, old[0], text)(service, "")

    return step


def before(path: str, line: str) -> Step:
    """Make a step that writes the block above this line."""
    return lambda service, text: edit(path, line, f"{text}{line}")(service, "")


def make_a_value_unique(service: Path) -> None:
    def in_both_functions(service: Path, text: str) -> None:
        path = service / BUILDERS
        path.write_text(path.read_text().replace('        "number": "sample",\n', text))

    follow(
        service,
        "make-a-value-unique.md",
        add(DOMAIN),
        before(PERSISTENCE, VERSION),
        typed,
        written("0007_unique_number.py"),
        written("0008_validate_unique_number.py"),
        decorated(API, "post"),
        decorated(API, "patch"),
        lambda service, text: edit(BUILDERS, SOME_ID, f"{SOME_ID}{text}")(service, ""),
        in_both_functions,
        add("tests/api/test_invoices.py"),
        add(TESTS),
    )


def add_a_child_entity(service: Path) -> None:
    note, cases = "    note: str | None\n", "tests/api/test_invoices.py"

    def in_domain(text: str) -> str:
        text = text.replace(note, f"{note}    lines: list[InvoiceLine]\n", 1)
        return text.replace("    status: InvoiceStatus =", "    lines: list[InvoiceLine]\n    status: InvoiceStatus =")

    def at_the_end_of(method: str) -> Step:
        record = "        await self._record(invoice)\n"
        pattern = rf"(    async def {method}\(.*?)(?={re.escape(record)})"
        return lambda service, text: changed(
            PERSISTENCE, lambda code: re.sub(pattern, rf"\g<1>{text}", code, count=1, flags=re.DOTALL)
        )(service, "")

    def in_models(text: str) -> str:
        new = r"(class NewInvoice\(.*?    note: [^\n]*\n)"
        text = re.sub(new, r"\1    lines: LinesValue = Field(default_factory=list)\n", text, flags=re.DOTALL)
        patch = r"(class InvoicePatch\(.*?    note: [^\n]*\n)"
        text = re.sub(patch, r"\1    lines: LinesValue | MISSING = MISSING\n", text, flags=re.DOTALL)
        shown = r"(class InvoiceDetails\(.*?    note: [^\n]*\n)"
        return re.sub(shown, r"\1    lines: list[InvoiceLineDetails]\n", text, flags=re.DOTALL)

    def in_builders(text: str) -> str:
        domain, body = re.findall('        "note": .*\n', text)
        text = text.replace(domain, f'{domain}        "lines": [new_invoice_line()],\n', 1)
        at = text.rindex(body) + len(body)
        return f'{text[:at]}        "lines": [invoice_line_body()],\n{text[at:]}'

    def into_list(name: str) -> Step:
        start = rf"(^{name}: list.*?\n)(?=\]\n)"
        return lambda service, text: changed(
            cases, lambda code: re.sub(start, lambda found: found[0] + text, code, flags=re.DOTALL | re.MULTILINE)
        )(service, "")

    follow(
        service,
        "add-a-child-entity.md",
        both(add(DOMAIN, above="InvoiceChanges"), changed(DOMAIN, in_domain)),
        # The page "record-who-changed-what" has put every select of invoices into LIVE.
        both(
            add(PERSISTENCE, above="LIVE"),
            edit(PERSISTENCE, "LIVE = sa.select(invoices)", "LIVE = whole_invoices"),
            edit(PERSISTENCE, "_SELECT_LOCKED = Statement(LIVE", "_SELECT_LOCKED = Statement(sa.select(invoices)"),
        ),
        lambda service, text: add(PERSISTENCE, above="InvoiceRepository")(
            service, text.replace("whole_invoices", "LIVE")
        ),
        instead_of(PERSISTENCE, "        row = await _SELECT_LOCKED.one(self._connection, id=invoice_id)\n"),
        at_the_end_of("add"),
        at_the_end_of("save"),
        both(
            add(PERSISTENCE),
            edit(
                PERSISTENCE,
                '        note=row["note"],\n',
                '        note=row["note"],\n        lines=[_to_line(row) for row in rows_of(row, invoice_lines)],\n',
            ),
        ),
        typed,
        both(
            changed(USECASES, lambda text: text.replace(note, f"{note}    lines: list[InvoiceLine]\n", 1)),
            edit(
                USECASES, "        note=command.note,\n", "        note=command.note,\n        lines=command.lines,\n"
            ),
            add(API, above="NewInvoice"),
            changed(API, in_models),
        ),
        both(add(BUILDERS), changed(BUILDERS, in_builders)),
        into_list("ACCEPTED"),
        into_list("REFUSED"),
        add("tests/usecases/test_invoices.py"),
    )


def refer_to_another_aggregate(service: Path) -> None:
    def accepted(service: Path, text: str) -> None:
        path = service / "tests/api/test_invoices.py"
        head, _, rest = path.read_text().partition("ACCEPTED: list")
        ids = re.compile(r'    \("customer_id", "[0f-]+"\),\n')
        assert len(ids.findall(rest)) == 2
        path.write_text(f"{head}ACCEPTED: list{ids.sub('', ids.sub(text, rest, count=1))}")

    def in_modules_that_post(service: Path, text: str) -> None:
        modules = [path for path in (service / "tests").glob("*/test_*.py") if "invoice_body" in path.read_text()]
        assert len(modules) >= 3
        appended(*(str(path.relative_to(service)) for path in modules))(service, f"\n{text}")
        search, test = "tests/api/test_invoice_search.py", "test_a_list_has_only_invoices_that_match_every_filter("
        edit(search, f"{test}client: AsyncClient)", f"{test}client: AsyncClient, database: Database)")(service, "")
        stored = "async with database.unit_of_work() as uow:\n        customer = str((await stored_account(uow)).id)"
        edit(search, "customer = str(new_invoice().id)", stored)(service, "")
        erased, ids = (
            "tests/messaging/test_erased_customers.py",
            "erased, other = [str(new_invoice().id) for _ in range(2)]",
        )
        stored = "erased, other = [str((await stored_account(uow)).id) for _ in range(2)]"
        edit(erased, ids, f"async with database.unit_of_work() as uow:\n        {stored}")(service, "")

    def of_a_route(method: str) -> Step:
        # The page "erase-a-persons-data" has given the route an error, which stays.
        return lambda service, text: decorated(API, method)(
            service, text.replace("problems(", "problems(CustomerErased, ")
        )

    def named_in_the_answer(service: Path, text: str) -> None:
        commit(service)
        [data] = [part.partition("=")[2] for part in shlex.split(text) if part.startswith("aggregates=")]
        update(service, Options({"aggregates": data}, "v1.0.0", finish=False))

    follow(
        service,
        "refer-to-another-aggregate.md",
        add(DOMAIN),
        before(PERSISTENCE, VERSION),
        named_in_the_answer,
        typed,
        written("0013_refer_to_accounts.py"),
        written("0014_validate_refer_to_accounts.py"),
        of_a_route("post"),
        decorated(API, "patch"),
        decorated("src/billing/api/accounts.py", "delete"),
        add(BUILDERS),
        before(BUILDERS, '    given: dict[str, Any] = {"invoice_id"'),
        add(CONFTEST),
        in_modules_that_post,
        accepted,
        add("tests/api/test_invoices.py"),
    )


# The pages run in this order in one service, because each page builds on the pages before it.
JOURNEY = {
    "from-a-module-to-a-service.md": from_a_module_to_a_service,
    "add-a-route.md": add_a_route,
    "publish-an-event.md": publish_an_event,
    "listen-to-an-event.md": listen_to_an_event,
    "start-a-new-consumer.md": start_a_new_consumer,
    "add-a-setting.md": add_a_setting,
    "repeat-a-request.md": repeat_a_request,
    "call-another-service.md": call_another_service,
    "call-with-types.md": call_with_types,
    "send-a-job.md": send_a_job,
    "write-a-saga.md": write_a_saga,
    "work-at-fixed-times.md": work_at_fixed_times,
    "do-long-work.md": do_long_work,
    "stream-and-upload.md": stream_and_upload,
    "store-files.md": store_files,
    "call-from-a-browser.md": call_from_a_browser,
    "exchange-a-token.md": exchange_a_token,
    "change-a-contract.md": change_a_contract,
    "filter-sort-and-search.md": filter_sort_and_search,
    "make-a-value-unique.md": make_a_value_unique,
    "let-the-database-give-a-value.md": let_the_database_give_a_value,
    "record-who-changed-what.md": record_who_changed_what,
    "erase-a-persons-data.md": erase_a_persons_data,
    "add-a-child-entity.md": add_a_child_entity,
    # This page comes last, because the tests of the pages before it invent ids of customers.
    "refer-to-another-aggregate.md": refer_to_another_aggregate,
}


@pytest.fixture(scope="module")
def service(born: Born, installed: Installed) -> Path:
    """An installed service. origin/main is its first commit."""
    parts = ["lists", "schedules", "republish", "neighbours", "idempotency"]
    answers = {"aggregates": AGGREGATES, "chassis_parts": parts, "auth": "oidc", "sagas": "postgres"}
    answers["independent_aggregates"] = "yes"
    service = born(messaging_style="events-and-queues", broker="nats", **answers)
    own = {**answers, "sagas": "none", "service_name": "accounts", "aggregates": AGGREGATES.strip().splitlines()[1]}
    shutil.copytree(born(messaging_style="events-and-queues", broker="nats", **own), service.parent / "accounts")
    # The page about sagas advises to delete the example by deleting its files.
    for path in ("api/invoice_reviews.py", "usecases/invoice_reviews.py", "sagas/review_invoice.py"):
        (service / "src/billing" / path).unlink()
    for path in ("test_review_invoice.py", "runs/invoice_approved.json"):
        (service / "tests/sagas" / path).unlink()
    installed(service)
    publish(service)
    return service


def publish(service: Path) -> None:
    """Commit, and push to origin/main."""
    commit(service)
    git(service, "update-ref", "refs/remotes/origin/main", "HEAD")


@pytest.mark.slow
@pytest.mark.xdist_group("how-to")
def test_a_service_that_follows_the_pages_passes_every_gate(service: Path, tmp_path: Path) -> None:
    for page in JOURNEY.values():
        page(service)
    make(service, "specs")
    make(service, "check")
    move_a_file(service, tmp_path)
    git(service, "add", "--all")
    found = list(check_conventions(Service(service)))
    # The first page describes this finding, which is about a status that callers do not know.
    unknown = [finding for finding in found if 'may also be "cancelled" now' in finding.reason]
    assert {finding.id for finding in unknown} == {"http-breaking"}
    assert [finding for finding in found if finding not in unknown] == []
    commit(service)
    map_ = read_folders([service, service.parent / "orders"])
    assert [(edge.source, edge.target) for edge in map_.of(Kind.EVENT) if edge.name == WITHDRAWN] == [
        ("orders", "billing")
    ]
    assert [one.finding.reason for one in map_findings(map_) if "orders" in one.services] == []


@pytest.mark.slow
@pytest.mark.xdist_group("how-to")
def test_the_migrations_of_a_service_can_be_squashed(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(service)
    versions = service / "src/billing/migrations/versions"
    newest = max(path.name for path in versions.glob("*.py"))[:4]
    squash = versions / f"{newest}_everything_so_far.py"

    def written(service: Path, text: str) -> None:
        typed(service, text.replace("0003", newest))

    def refused(service: Path, text: str) -> None:
        done = make(service, *text.split()[1:], check=False)
        assert done.returncode != 0
        [line] = re.findall(r"replaces = .*", done.stderr)
        squash.write_text(squash.read_text().replace("\ndown_revision", f"\n{line}\ndown_revision"))

    with embedded.temporary_postgres() as url:
        monkeypatch.setattr("tests.support.commands.service_environment", lambda: service_environment(DATABASE_URL=url))
        make(service, "migrate")
        follow(service, "squash-migrations.md", typed, written, refused, shown)
        make(service, "migrate")
    make(service, "migrations")
    commit(service)
    assert comparisons_broken(service) == set()


INVOICE = "Invoice: {number: string(40), customer_id: uuid, total: money, due_on: date?, note: text?}\n"


@pytest.mark.slow
@pytest.mark.xdist_group("how-to")
def test_an_aggregate_is_removed_in_three_releases_and_each_gate_asks_for_its_part(
    born: Born, installed: Installed
) -> None:
    aggregates = f"{INVOICE}Refund: {{invoice: Invoice, reason: text, amount: money}}\n"
    service = born(messaging_style="events-and-queues", broker="nats", aggregates=aggregates)
    installed(service)
    make(service, "specs")
    publish(service)
    schema = "src/billing/persistence/schema.py"
    first = (service / schema).read_text()

    def announced(service: Path, text: str) -> None:
        line = 'router = APIRouter(prefix="/v1/refunds", tags=["refunds"], route_class=ResourceRoute)\n'
        edit("src/billing/api/refunds.py", line, text)(service, "")
        import_missing(service)
        make(service, "specs")
        assert comparisons_broken(service) == set()
        publish(service)

    def gone(service: Path, text: str) -> None:
        typed(service, text)
        assert "billing.domain.refunds" in make(service, "types", check=False).stdout
        changed(
            API, lambda text: re.sub(r"(^from billing.domain.refunds .*\n|, InvoiceHasRefunds)", "", text, flags=re.M)
        )(service, "")
        make(service, "format", "specs")
        assert "specs/retired.txt" in (done := make(service, "compatible", check=False)).stdout + done.stderr
        assert "refunds" in (done := make(service, "migrations", check=False)).stdout + done.stderr

    def answered(service: Path, text: str) -> None:
        make(service, "specs")
        make(service, "check")
        assert comparisons_broken(service) == set()
        publish(service)
        before = set(git(service, "ls-files").split())
        [data] = [part.partition("=")[2] for part in shlex.split(text) if part.startswith("aggregates=")]
        update(service, Options({"aggregates": data}, "v1.0.0", finish=False))
        assert set(git(service, "ls-files").split()) == before
        publish(service)

    def dropped(service: Path, text: str) -> None:
        (service / schema).write_text(first)
        both(migrated("drop refunds"), written("*_drop_refunds.py"))(service, text)
        assert comparisons_broken(service) == {"migration-expand-contract"}
        [path] = (service / "src/billing/migrations/versions").glob("*_drop_refunds.py")
        path.write_text(path.read_text().replace("def upgrade", f"{text.partition(chr(10))[0]}\ndef upgrade"))
        make(service, "migrations")
        assert comparisons_broken(service) == set()

    def always_null(service: Path, text: str) -> None:
        publish(service)
        details = "    note: NoteValue | None\n    status: InvoiceStatus\n"
        edit(API, details, f"    status: InvoiceStatus\n\n{text}\n")(service, "")
        import_missing(service)
        make(service, "types", "specs")
        assert '"deprecated": true' in (service / "specs/openapi.json").read_text()
        git(service, "add", "--all")
        assert list(check_conventions(Service(service))) == []

    follow(
        service,
        "remove-from-a-service.md",
        announced,
        gone,
        appended(schema),
        new("specs/retired.txt"),
        shown,  # a statement on the database of an environment
        answered,
        dropped,
        always_null,
    )


def comparisons_broken(service: Path) -> set[str]:
    """Return the ids of the broken conventions that compare the service with its base: the others run programs for seconds."""
    git(service, "add", "--all")
    compare = [one for one in conventions() if one.id.startswith(("event-", "http-", "migration-"))]
    return {one.id for one in compare if [*one.check(Service(service))]}


BEFORE = """
def upgrade() -> None:
    op.execute("CREATE TYPE billing.colour AS ENUM ('red')")
    op.add_column("invoices", sa.Column("channel", sa.Text()), schema="billing")
    op.add_column("invoices", sa.Column("due_at", sa.Date()), schema="billing")
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", ["change-a-large-table.md", "change-a-column.md"])
def test_the_migrations_of_a_page_can_be_run_again_and_pass_the_gate(
    born: Born, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born()
    git(service, "update-ref", "refs/remotes/origin/main", "HEAD")
    package = types.ModuleType("billing")
    package.__path__ = [str(service / "src/billing")]
    ours = dataclasses.replace(tiny.SERVICE, name="billing", package=package, tables=metadata_for("billing"))
    texts = [BEFORE, *(text for text in blocks(page) if "def upgrade" in text)]
    with embedded.temporary_postgres() as url:
        for number, text in enumerate(texts, start=2):
            head = f'import sqlalchemy as sa\nfrom alembic import op\n\nrevision = "{number:04}"\n'
            path = service / f"src/billing/migrations/versions/{number:04}_of_the_page.py"
            path.write_text(f'{head}down_revision = "{number - 1:04}"\n\n\n{text}')
            migrate.upgrade(ours, url)
            if "autocommit_block" in text:  # the migration stopped before it was recorded
                ask(url, f"UPDATE billing.alembic_version SET version_num = '{number - 1:04}' WHERE version_num ~ '^0'")
                migrate.upgrade(ours, url)
    assert [id_ for id_ in comparisons_broken(service) if id_.startswith("migration-")] == []


def test_every_page_is_followed_or_says_why_not() -> None:
    pages = {path.name for path in PAGES.glob("*.md")} - {"README.md"}
    others = {"change-a-large-table.md", "change-a-column.md", "remove-from-a-service.md", "squash-migrations.md"}
    with_identity = {
        "protect-a-route.md",
        "record-who-did-it.md",
        "use-a-policy-engine.md",
    }  # test_messaging_turned_on.py
    # test_restore.py, test_provider.py of the chassis, test_running.py of tests/fleet/up, and test_impact.py
    elsewhere = {"back-up-and-restore.md", "rotate-keys.md", "run-the-product.md", "see-whom-a-change-breaks.md"}
    elsewhere |= {"question-the-boundaries.md"}  # tests/fleet/boundaries
    elsewhere |= {"introduce-a-rule.md"}  # tests/fleet/policy
    elsewhere |= {"move-sagas-to-temporal.md"}  # tests/service/test_temporal.py
    elsewhere |= {"show-progress.md"}  # tests/fleet/history, tests/fleet/page
    followed = JOURNEY.keys() | others | with_identity | elsewhere
    assert followed.isdisjoint(NOT_RUN)
    assert pages == followed | NOT_RUN.keys()
    assert len(NOT_RUN) <= 35  # a longer list needs a decision
