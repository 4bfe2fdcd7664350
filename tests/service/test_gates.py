"""Each gate of a generated service can fail alone, and prints advice."""

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.answers import VARIANTS
from tests.support.commands import git, make
from tests.support.services import Birth

GATES = {"format-check", "lint", "types", "layers", "migrations", "specs-check", "compatible", "test"}


@dataclass(frozen=True)
class Mutation:
    """A way to break a service: `break_it` gets its folder, and `advice` is in the message of the failing gate."""

    gate: str
    break_it: Callable[[Path], None]
    advice: str


def edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(service: Path) -> None:
        text = (service / path).read_text()
        assert old in text, f"{path} no longer holds {old!r}: mend this mutation"
        (service / path).write_text(text.replace(old, new, 1))

    return apply


def append(path: str, code: str) -> Callable[[Path], None]:
    def apply(service: Path) -> None:
        with (service / path).open("a") as file:
            file.write(code)

    return apply


def publish_and_forget(service: Path) -> None:
    """Publish a message on main, and remove it from the code."""
    schema = service / "specs/messages/billing.gone.v1.json"
    schema.parent.mkdir(exist_ok=True)
    schema.write_text('{"title": "GoneV1", "x-kind": "event", "type": "object"}')
    git(service, "add", "--all")
    git(service, "commit", "--quiet", "--message", "Publish")
    git(service, "update-ref", "refs/remotes/origin/main", "HEAD")
    schema.unlink()


MUTATIONS = {
    "bad formatting": Mutation(
        "format-check", append("src/billing/settings.py", "\n\nLIMITS  =  (1,2)\n"), "make format"
    ),
    "an unused import": Mutation(
        "lint",
        edit("src/billing/settings.py", "from chassis", "import json\n\nfrom chassis"),
        "make format",
    ),
    "a breakpoint": Mutation(
        "lint", append("src/billing/settings.py", "\n\ndef stop() -> None:\n    breakpoint()\n"), "make format"
    ),
    "a wrong type": Mutation("types", append("src/billing/settings.py", '\n\nLIMIT: int = "many"\n'), "annotations"),
    "the domain knows the database": Mutation(
        "layers",
        edit(
            "src/billing/domain/invoices.py",
            "from chassis.errors import Conflict, NotFound\n",
            "from chassis.database import UnitOfWork as UnitOfWork\nfrom chassis.errors import Conflict, NotFound\n",
        ),
        "move the code, not the rule",
    ),
    "a use case knows HTTP": Mutation(
        "layers",
        edit(
            "src/billing/usecases/invoices.py",
            "from chassis.database import UnitOfWork\n",
            "from chassis.database import UnitOfWork\nfrom chassis.http import utc_now as utc_now\n",
        ),
        "move the code, not the rule",
    ),
    "an index without a migration": Mutation(
        "migrations",
        edit(
            "src/billing/persistence/invoices.py",
            '    sa.CheckConstraint("version >= 1", name="version_positive"),\n',
            '    sa.CheckConstraint("version >= 1", name="version_positive"),\n    sa.Index(None, "status"),\n',
        ),
        "make migration",
    ),
    "a route that the document does not know": Mutation(
        "specs-check",
        edit("src/billing/api/invoices.py", '"""Create a draft."""', '"""Create one draft."""'),
        "make specs",
    ),
    "a message that is gone": Mutation("compatible", publish_and_forget, "specs/retired.txt"),
    "a rule that is not kept": Mutation(
        "test",
        edit("src/billing/domain/invoices.py", "if self.status is InvoiceStatus.ISSUED:", "if self.version < 0:"),
        "make test",
    ),
}


def failed(output: str) -> list[str]:
    """Return the gates whose targets failed, from make's output."""
    return sorted(re.findall(r"\*\*\* \[.*?\b(" + "|".join(GATES) + r")\] Error", output))


@pytest.fixture
def service(birth: Birth) -> Generator[Path]:
    """A service to break. It is repaired after the test."""
    service = birth(**VARIANTS["default"])
    start = git(service, "rev-parse", "HEAD").strip()
    yield service
    git(service, "reset", "--quiet", "--hard", start)


@pytest.mark.slow
@pytest.mark.xdist_group("gates")
@pytest.mark.parametrize("mutation", [pytest.param(mutation, id=name) for name, mutation in MUTATIONS.items()])
def test_the_gate_of_each_fault_fails_and_names_the_remedy(
    service: Path, mutation: Mutation, postgres_url: str
) -> None:
    mutation.break_it(service)
    checked = make(
        service, "check", f"GATES={mutation.gate}", f"DATABASE_URL={postgres_url}", "ARGS=tests/domain", check=False
    )
    assert checked.returncode != 0
    output = checked.stdout + checked.stderr
    assert failed(output) == [mutation.gate], output
    assert mutation.advice in output


@pytest.mark.slow
@pytest.mark.xdist_group("gates")
@pytest.mark.parametrize("gate", sorted(GATES))
def test_a_gate_passes_with_the_faults_of_all_other_gates_together(service: Path, gate: str, postgres_url: str) -> None:
    for mutation in MUTATIONS.values():
        if mutation.gate != gate:
            mutation.break_it(service)
    assert "All gates passed." in make(service, "check", f"GATES={gate}", f"DATABASE_URL={postgres_url}").stdout


@pytest.mark.slow
@pytest.mark.xdist_group("gates")
def test_check_shows_all_gates_that_fail_and_not_only_the_first(service: Path) -> None:
    some = ["format-check", "layers", "lint"]
    for mutation in MUTATIONS.values():
        mutation.break_it(service)
    checked = make(service, "check", f"GATES={' '.join(some)}", check=False)
    assert failed(checked.stdout + checked.stderr) == some


def test_every_gate_has_a_mutation() -> None:
    assert {mutation.gate for mutation in MUTATIONS.values()} == GATES
