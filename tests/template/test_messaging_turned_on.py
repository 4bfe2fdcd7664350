"""A messaging style that is turned on later: an update adds the missing files once, and changes no file of the team."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.broker_clients import CLIENTS, asked_for
from tests.support.commands import git, make
from tests.support.how_to import Step, add, both, edit, follow, into, new, shown, typed
from tests.support.paths import ROOT
from tests.support.quick_copier import run_quick_copier
from tests.support.services import install

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("update")]

EVENTS = {
    "src/billing/messaging/invoices.py",
    "tests/messaging/test_invoices.py",
    "tests/messaging/golden/invoice_issued_v1.json",
}
QUEUES = {
    *(f"src/billing/{layer}/invoice_reminders.py" for layer in ("api", "messaging", "usecases")),
    *(f"tests/{layer}/test_invoice_reminders.py" for layer in ("api", "messaging", "usecases")),
    "tests/messaging/golden/remind_of_invoice_v1.json",
}
OURS = '{"invoice_id": "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d"}\n'
PLATFORM = {"deploy/base/worker.yaml", "deploy/components/monitoring/alerts-messages.yaml"}
SCALED = {f"deploy/components/keda/{name}.yaml" for name in ("kustomization", "scaledobject")}
"""The files for styles in which more replicas process more jobs."""
PAGE = {"docs/messages.md"}
EDITOR = {f".vscode/{name}.json" for name in ("extensions", "launch", "settings", "tasks")}
IDENTITY = {"docs/identity.md", "tests/api/test_callers.py"}

PAGE_ABOUT_IDENTITY = (ROOT / "docs/how-to/turn-identity-on.md").read_text()

Update = Callable[..., dict[str, set[str]]]


@pytest.fixture(scope="module")
def releases(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a git repository with releases."""
    # Copier clones the repository three times in each update, so leave out the folders that Copier does not read.
    beside = ("bench", "demo", "docs", "examples", "fleet", "tests")
    repository = tmp_path_factory.mktemp("releases") / "template"
    shutil.copytree(template, repository, ignore=lambda folder, _: beside if Path(folder) == template else ())
    git(repository, "init", "--quiet", "--initial-branch", "main")
    for number in range(6):
        release(repository, f"v1.{number}.0")
    return repository


def release(repository: Path, tag: str) -> None:
    """Release one more version, in which a file of the platform and a file of the team have changed."""
    for name in ("template/Makefile.jinja", "template/docs/runbook.md.jinja"):
        with (repository / name).open("a") as file:
            file.write(f"# {tag}\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", tag)
    git(repository, "tag", tag)


@pytest.fixture(scope="module")
def first(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service without messages, edited by its team, whose version of the template did not ask about identity."""
    born = tmp_path_factory.mktemp("first") / "billing"
    run_quick_copier("copy", "--vcs-ref", "v1.0.0", releases, born, auth="none")
    answers = born / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("auth: none\n", ""))
    git(born, "init", "--quiet", "--initial-branch", "main")
    save(born)
    usecases = born / "src/billing/usecases/invoices.py"
    usecases.write_text(usecases.read_text().replace('"""Make a draft."""', '"""Make a draft, as we like it."""'))
    (born / "README.md").write_text("# Ours\n")
    (born / "docs/decisions/README.md").unlink()
    save(born)
    return born


@pytest.fixture
def service(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "billing", symlinks=True))


def save(service: Path) -> None:
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--message", "Ours")


@pytest.fixture
def update(service: Path) -> Update:
    """`update(tag, **answers)`: update without --trust, and return the added, edited and deleted files."""

    def update(tag: str, **answers: str) -> dict[str, set[str]]:
        run_quick_copier("update", "--vcs-ref", tag, service, **answers)
        git(service, "add", "--all")
        changed = git(service, "diff", "--cached", "--name-status", "--no-renames").splitlines()
        found: dict[str, set[str]] = {"A": set(), "M": set(), "D": set()}
        for kind, _, path in (line.partition("\t") for line in changed):
            found[kind].add(path)
        assert "Makefile" in found["M"], "the update itself"
        save(service)
        return found

    return update


def of_the_team(paths: set[str]) -> set[str]:
    owned = ("src/", "tests/", "specs/", "docs/", "deploy/overlays/", ".vscode/")
    return {path for path in paths if path.startswith(owned) or path in ("README.md", "CODEOWNERS", "pyproject.toml")}


def of_the_chassis(paths: set[str]) -> set[str]:
    return {path for path in paths if path.startswith("chassis/")}


def test_a_service_passes_its_gates_after_events_are_turned_on_and_off_again(
    update: Update, service: Path, shared: Path, postgres_url: str
) -> None:
    changed = update("v1.1.0", messaging_style="events")
    messaging = of_the_chassis(changed["A"])
    assert changed["A"] == EVENTS | PAGE | PLATFORM | messaging
    assert {"chassis/src/chassis/messaging/part.py", "chassis/src/chassis/brokers/nats/broker.py"} <= messaging
    assert of_the_chassis(changed["M"]) == {"chassis/pyproject.toml"}
    assert of_the_team(changed["M"]) == set()
    assert changed["D"] == set()
    assert (service / "README.md").read_text() == "# Ours\n"
    assert "auth: none\n" in (service / ".copier-answers.yml").read_text()
    install(service, shared)
    make(service, "specs")
    assert "All gates passed." in make(service, "check", f"DATABASE_URL={postgres_url}").stdout
    assert [path.name for path in service.glob(".venv/lib/*/site-packages/nats")] == ["nats"]
    save(service)

    changed = update("v1.2.0", messaging_style="sync", auth="oidc")
    assert changed["D"] == PLATFORM | messaging
    assert (of_the_team(changed["A"] | changed["M"]), of_the_chassis(changed["M"])) == (
        IDENTITY,
        {"chassis/pyproject.toml"},
    )
    assert asked_for(service / "chassis/pyproject.toml") & set(CLIENTS.values()) == set()
    make(service, "setup")
    assert [*service.glob(".venv/lib/*/site-packages/nats")] == []
    refused = make(service, "specs", check=False)
    assert refused.returncode != 0
    assert (
        "billing has lines in OUTGOING or INCOMING of messaging/, and its answer messaging_style is sync"
        in refused.stderr
    )

    for path in EVENTS:
        (service / path).unlink()
    take_the_steps_of_the_page(service, postgres_url)
    record_who_did_it(service)
    protect_a_route(service)
    use_a_policy_engine(service)
    make(service, "specs")
    assert "All gates passed." in make(service, "check", f"DATABASE_URL={postgres_url}").stdout


def take_the_steps_of_the_page(service: Path, postgres_url: str) -> None:
    """Do by hand what docs/how-to/turn-identity-on.md describes."""
    base, auth, route = (
        dedent(text) for text in re.findall(r"```python\n(    .*?)    ```", PAGE_ABOUT_IDENTITY, re.DOTALL)
    )
    settings, main, api = (service / f"src/billing/{name}.py" for name in ("settings", "main", "api/invoices"))
    settings.write_text(re.sub(r"import chassis.settings\n\n\nclass .*\n", base, settings.read_text()))
    tested = make(service, "test", "ARGS=-k callers", f"DATABASE_URL={postgres_url}", check=False)
    assert tested.returncode != 0, "the service is still open"
    imports = "from chassis.application import application\n"
    text = main.read_text().replace(imports, f"{imports}from chassis.identity import Oidc\n")
    main.write_text(text.replace("    owner=", f"{auth.splitlines()[2]}\n    owner="))
    refused = make(service, "specs", check=False).stderr
    assert 'GET /v1/invoices: put @scopes("…") above its function' in refused
    scopes = route.splitlines()[1]
    text = re.sub(r"^(?=async def )", f"{scopes}\n", api.read_text(), flags=re.MULTILINE)
    api.write_text(text.replace("from chassis.problems", "from chassis.identity import scopes\nfrom chassis.problems"))
    make(service, "format")


def record_who_did_it(service: Path) -> None:
    """Follow docs/how-to/record-who-did-it.md."""
    domain, persistence, usecases, api = (
        f"src/billing/{layer}/invoices.py" for layer in ("domain", "persistence", "usecases", "api")
    )
    check = '    sa.CheckConstraint("version >= 1"'
    shown_as = "Annotated[fields.Text, Field(max_length=255)] | None"

    def behind_updated_at(path: str, pattern: str, kind: str) -> Step:
        text = (service / path).read_text()
        line = re.findall(pattern, text, re.MULTILINE)[-1]
        added = "".join(
            line.replace("updated_at", name).replace("datetime", kind) for name in ("created_by", "updated_by")
        )
        return edit(path, line, line + added)

    follow(
        service,
        "record-who-did-it.md",
        shown,  # an answer, which the variants in tests/support/answers.py have
        lambda service, text: edit(domain, "    updated_at: datetime\n", f"    updated_at: datetime\n{text}")(
            service, ""
        ),
        lambda service, text: edit(persistence, check, "".join(text.splitlines(keepends=True)[2:-1]) + check)(
            service, ""
        ),
        into(persistence, "InvoiceRepository"),
        into(persistence, "InvoiceRepository"),
        into(persistence, "InvoiceRepository"),
        both(
            behind_updated_at(persistence, r"^        updated_at=.*\n", ""),
            behind_updated_at(persistence, r'^        "updated_at": .*\n', ""),
            edit(persistence, '{"id", "created_at"}', '{"id", "created_at", "created_by"}'),
            behind_updated_at(api, r"^    updated_at: datetime\n", shown_as),
            typed,
        ),
        add(domain),
        into(domain, "Invoice"),
        both(
            add(usecases),
            edit(
                usecases,
                "from chassis.database import UnitOfWork\n",
                "from chassis.database import UnitOfWork\nfrom chassis.identity import Caller\n",
            ),
        ),
        both(add(api), edit(api, "from chassis.identity import scopes", "from chassis.identity import caller, scopes")),
        both(
            new("tests/api/test_owners.py"),
            edit("tests/api/test_owners.py", "URL =", "from chassis.dev.issuer import Client\nURL ="),
        ),
    )


def protect_a_route(service: Path) -> None:
    """Follow docs/how-to/protect-a-route.md."""
    steps = new("src/billing/api/prices.py"), new("tests/api/test_prices.py")
    follow(service, "protect-a-route.md", *steps, shown)  # the last block is a command while `make dev` runs


def use_a_policy_engine(service: Path) -> None:
    """Follow docs/how-to/use-a-policy-engine.md."""
    uv = "UV_PYTHON=.venv/bin/python PATH=.tools/bin:$PATH uv"
    follow(
        service,
        "use-a-policy-engine.md",
        lambda service, text: typed(service, text.replace("uv add", f"{uv} add --quiet")),
        new("src/billing/usecases/invoice_policies.py"),
        shown,  # the lines of a route that change
        new("tests/usecases/test_invoice_policies.py"),
    )


def test_queues_that_are_turned_on_later_join_the_existing_files_of_the_team(
    update: Update, service: Path, shared: Path, postgres_url: str
) -> None:
    ours = service / "tests/messaging/golden/remind_of_invoice_v1.json"
    ours.parent.mkdir(parents=True)
    ours.write_text(OURS)
    save(service)
    changed = update("v1.1.0", messaging_style="queues", broker="rabbitmq")
    assert changed["A"] - of_the_chassis(changed["A"]) == (QUEUES | PAGE | PLATFORM | SCALED) - {
        str(ours.relative_to(service))
    }
    assert of_the_team(changed["M"]) == set()
    assert changed["D"] == set()
    assert ours.read_text() == OURS
    install(service, shared)
    make(service, "specs")
    assert "All gates passed." in make(service, "check", f"DATABASE_URL={postgres_url}").stdout


def test_files_that_the_team_deletes_stay_deleted_and_other_files_stay(update: Update, service: Path) -> None:
    changed = update("v1.1.0", messaging_style="events", editor="vscode")
    assert changed["A"] > EDITOR
    shutil.rmtree(service / "tests/messaging")
    (service / ".vscode/tasks.json").unlink()
    (service / ".vscode/settings.json").write_text("{}\n")
    (service / "src/billing/messaging/invoices.py").write_text("OUTGOING = []\n")
    save(service)

    changed = update("v1.2.0")
    assert (of_the_team(changed["A"] | changed["M"]), changed["D"]) == (set(), set())

    changed = update("v1.3.0", messaging_style="events-and-queues")
    assert of_the_team(changed["A"]) == QUEUES
    assert (of_the_team(changed["M"]), changed["D"]) == (set(), set())

    changed = update("v1.4.0", messaging_style="sync")
    assert changed["D"] - of_the_chassis(changed["D"]) == PLATFORM | SCALED
    assert of_the_team(changed["A"] | changed["M"]) == set()

    changed = update("v1.5.0", messaging_style="events")
    assert changed["A"] - of_the_chassis(changed["A"]) == PLATFORM
    assert (of_the_team(changed["M"]), changed["D"]) == (set(), set())
    assert (service / "src/billing/messaging/invoices.py").read_text() == "OUTGOING = []\n"


def test_there_is_no_example_for_an_aggregate_that_the_team_has_removed(update: Update, service: Path) -> None:
    for path in list(service.rglob("*invoice*")):
        path.unlink()
    save(service)
    changed = update("v1.1.0", messaging_style="events-and-queues")
    assert changed["A"] - of_the_chassis(changed["A"]) == PAGE | PLATFORM | SCALED
    assert changed["D"] == set()


def test_sagas_are_turned_on_with_their_example_and_off_without_the_code_of_the_team(
    update: Update, service: Path
) -> None:
    update("v1.1.0", messaging_style="queues")
    (service / "docs/messages.md").unlink()
    save(service)
    changed = update("v1.2.0", sagas="postgres")
    assert of_the_team(changed["A"]) == {
        "src/billing/messaging/sagas.py",
        "src/billing/sagas/__init__.py",
        "src/billing/sagas/review_invoice.py",
        *(f"src/billing/{layer}/invoice_reviews.py" for layer in ("api", "usecases")),
        *(f"tests/sagas/{name}" for name in ("conftest.py", "test_runs.py", "test_review_invoice.py")),
        "tests/sagas/runs/invoice_approved.json",
    }
    assert of_the_team(changed["M"] | changed["D"]) == set()
    (service / "src/billing/sagas/review_invoice.py").unlink()
    save(service)
    changed = update("v1.3.0")
    assert of_the_team(changed["A"]) == set()
    changed = update("v1.4.0", sagas="none")
    assert of_the_team(changed["D"]) == set()
    assert "chassis/src/chassis/sagas/run.py" in changed["D"]


def test_plain_copier_refuses_sagas_without_queues_and_the_remedy_works(update: Update, service: Path) -> None:
    with pytest.raises(
        AssertionError, match=r"no queues\. Give both answers: -d messaging_style=queues -d sagas=postgres"
    ):
        update("v1.1.0", sagas="postgres")
    assert git(service, "status", "--porcelain") == ""
    changed = update("v1.1.0", messaging_style="queues", sagas="postgres")
    assert "src/billing/sagas/review_invoice.py" in changed["A"]
    assert of_the_team(changed["M"] | changed["D"]) == set()
