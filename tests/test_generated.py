"""Generated services are green on the day of their birth, by their own gates."""

from typing import Any

import pytest

from tests.answers import EACH, VARIANTS
from tests.conftest import Birth, git, make


@pytest.mark.slow
@pytest.mark.parametrize("answers", EACH)
def test_a_newborn_service_passes_all_its_gates_and_leaves_git_clean(birth: Birth, answers: dict[str, Any]) -> None:
    service = birth(**answers)
    checked = make(service, "check")
    assert "All gates passed." in checked.stdout
    assert " passed" in checked.stdout
    assert git(service, "status", "--porcelain") == ""


@pytest.mark.slow
def test_its_tests_pass_in_parallel_workers_too(birth: Birth) -> None:
    tested = make(birth(**VARIANTS["default"]), "test", "ARGS=-n 2")
    assert " passed" in tested.stdout


@pytest.mark.slow
def test_a_new_column_becomes_a_migration_that_the_gate_accepts(birth: Birth) -> None:
    service = birth(**VARIANTS["default"])
    table = service / "src/billing/persistence/invoices.py"
    try:
        before = '    sa.Column("status", sa.String(16), nullable=False),\n'
        table.write_text(
            table.read_text().replace(before, f'    sa.Column("memo", sa.Text, nullable=True),\n{before}', 1)
        )
        assert make(service, "migrations", check=False).returncode != 0
        written = make(service, "migration", "m=add memo")
        assert "0002_add_memo.py" in written.stdout
        make(service, "migrations", "format-check", "lint")
    finally:
        git(service, "checkout", "--quiet", ".")
        git(service, "clean", "--quiet", "--force", "src")
