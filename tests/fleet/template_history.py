"""The changes of the template's later versions: one of each kind that an update has to handle."""

import stat
from pathlib import Path

from tests.support.commands import git

NOTES = """# Changelog

## [1.3.0] - 2027-03-01

### Settings

- `OLD_LIMIT` is gone.

## [1.2.0] - 2027-02-01

### Migrations

- `chassis_0002` adds a column; the image before
  it runs on the new schema.

## [1.1.0] - 2027-01-01

### Settings

- `NEW_LIMIT` is new; 10 if it is not set.

### Behaviour

- Nothing is answered twice.

"""

MIGRATION = '''"""Move the runbook to docs/operations."""

from pathlib import Path

old, new = Path("docs/runbook.md"), Path("docs/operations/runbook.md")
if old.exists() and not new.exists():
    new.parent.mkdir(exist_ok=True)
    old.rename(new)
    print("docs/runbook.md is docs/operations/runbook.md now")
'''


# A file of this test's template, which a later version renames.
QUESTION = """
zone:
  type: str
  choices: [eu, us]
  default: eu
"""

# Platform-owned until 1.1.0, and team-owned from 1.2.0 on. The template drops the last file in the same release.
HANDED_OVER = ("renovate.json", ".dockerignore", "pytest.ini", ".checkov.yaml")


def release_first_version(repository: Path) -> None:
    """1.0.0: the current template, with one more question."""
    questions = repository / "copier.yml"
    questions.write_text(questions.read_text() + QUESTION)
    git(repository, "init", "--quiet", "--initial-branch", "main")
    _release(repository, "v1.0.0")


def release_later_versions(repository: Path) -> None:
    template = repository / "template"
    changelog = repository / "CHANGELOG.md"
    changelog.write_text(NOTES)

    # 1.1.0: platform files edited, removed, renamed, added, made executable; seeds edited, removed, added.
    ruff = template / "ruff.toml"
    ruff.write_text(ruff.read_text().replace("line-length = 120", "line-length = 110"))
    (template / ".editorconfig").unlink()
    (template / "schemathesis.toml.jinja").rename(template / "fuzz.toml.jinja")
    (template / "platform.txt.jinja").write_text("Platform-owned, of {{ service_name }}.\n")
    ty = template / "ty.toml.jinja"
    ty.chmod(ty.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    settings = template / "src/{{ package }}/settings.py.jinja"
    settings.write_text(settings.read_text() + "\n# Version 1.1.0 seeds this.\n")
    (template / "docs/decisions/README.md").unlink()
    (template / "docs/on-call.md.jinja").write_text("# Who is called for {{ service_title }}\n")
    _release(repository, "v1.1.0")

    # 1.2.0: a migration of the team's files, a seed that is renamed with it, platform files that become the team's.
    ownership = repository / "ownership/service-owned.yml"
    ownership.write_text(ownership.read_text() + "".join(f"- /{path}\n" for path in HANDED_OVER))
    (template / HANDED_OVER[-1]).unlink()
    hooks = repository / "hooks/migrations"
    hooks.mkdir(parents=True, exist_ok=True)
    (hooks / "1.2.0.py").write_text(MIGRATION)
    (template / "docs/operations").mkdir()
    (template / "docs/runbook.md.jinja").rename(template / "docs/operations/runbook.md.jinja")
    _release(repository, "v1.2.0")

    # 1.3.0: one question is renamed, and one is new; a platform file shows the answer.
    questions = repository / "copier.yml"
    renamed = QUESTION.replace("zone:", "region:").replace("default: eu", "default: \"{{ zone | default('eu') }}\"")
    questions.write_text(questions.read_text().replace(QUESTION, f"{renamed}\ntier:\n  type: int\n  default: 3\n"))
    (template / "platform.txt.jinja").write_text(
        "Platform-owned, of {{ service_name }}, in {{ region }}, {{ tier }}.\n"
    )
    _release(repository, "v1.3.0")


def release_that_claims(repository: Path, *paths: str) -> None:
    """1.4.0: the platform takes over these paths, which the team has owned so far."""
    ownership = repository / "ownership/service-owned.yml"
    rows = ownership.read_text().splitlines(keepends=True)
    ownership.write_text("".join(row for row in rows if row[3:-1] not in paths))
    _release(repository, "v1.4.0")


def _release(repository: Path, version: str) -> None:
    git(repository, "add", "--all", "--force")
    git(repository, "commit", "--quiet", "--message", version)
    git(repository, "tag", version)
