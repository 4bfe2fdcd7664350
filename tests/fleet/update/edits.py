"""The edits of a team: every kind in one service. The tests look for each after the update."""

from pathlib import Path

from tests.fleet.services import commit
from tests.support.commands import git

# The team's files, and their content afterwards. None: deleted.
TEAM: dict[str, str | None] = {
    "src/billing/main.py": "# Edited; the template leaves it as it is.\n",
    "src/billing/settings.py": "# Edited; the template changes its seed.\n",
    "src/billing/api/invoices.py": None,
    "docs/decisions/README.md": "# Edited; the template has removed its seed.\n",
    "docs/decisions/0001-a-service-of-its-own.md": None,
    "README.md": "# Edited.\n",
    "CODEOWNERS": None,
    "src/billing/domain/reports.py": "# The team's own, in a seeded folder.\n",
    "docs/ours/notes.md": "# The team's own.\n",
    ".github/workflows/ours.yaml": "on: push\n",
    "local.mk": "ours:\n",
}


def team_edits(service: Path) -> None:
    for path, content in TEAM.items():
        file = service / path
        if content is None:
            file.unlink()
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    commit(service, "The team's work")


def platform_edits(service: Path) -> None:
    """Edit lines that the template changes too, other lines, and files that it moves; delete a file, change a mode."""
    for path in ("ruff.toml", "schemathesis.toml", ".editorconfig", "chassis/src/chassis/http.py"):
        text = (service / path).read_text()
        (service / path).write_text(text.replace("line-length = 120", "line-length = 100") + "\n# By hand.\n")
    (service / "compose.yaml").unlink()
    (service / "Makefile").chmod(0o755)
    commit(service, "Edits by hand")


def kept(service: Path) -> None:
    """Check that every team-owned path is as the team left it."""
    for path, content in TEAM.items():
        file = service / path
        assert (file.read_text() if file.exists() else None) == content, path
    assert not git(service, "ls-files", "--unmerged")
