"""Missing pages and sections."""

from pathlib import Path

import pytest

from tests.fleet.conventions.mutations import Mutations, append, each_alone, edit, everywhere, remove, texts_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]


MUTATIONS: Mutations = {
    "no runbook": ("docs-runbook", remove("docs/runbook.md"), "there is no runbook"),
    "no way back": (
        "docs-runbook",
        edit("docs/runbook.md", "## Roll back", "## More"),
        "no section is about rolling back",
    ),
    "an alert that leads nowhere": (
        "docs-alerts",
        edit("docs/runbook.md", "## Requests fail", "## What fails"),
        "an alert links to #requests-fail, and no heading has this anchor",
    ),
    "a page that alerts lead to": (
        "docs-alerts",
        append("deploy/overlays/production/alerts.yaml", "# runbook_url: 'docs/ours.md#what-to-do'\n"),
        "alerts link to this page, and it is missing",
    ),
    "no first decision": (
        "docs-decisions",
        remove("docs/decisions/0001-a-service-of-its-own.md"),
        "record 0001 is missing",
    ),
    "a gap": (
        "docs-decisions",
        append("docs/decisions/0003-gap.md", "# 3\n\n## Context\n\n## Decision\n\n## Consequences\n"),
        "there is no record 0002",
    ),
    "a number twice": (
        "docs-decisions",
        append("docs/decisions/0001-again.md", "# 1\n\n## Context\n\n## Decision\n\n## Consequences\n"),
        "2 records have the number 0001",
    ),
    "a decision without consequences": (
        "docs-decisions",
        append("docs/decisions/0002-more.md", "# 2\n\n## Context\n\n## Decision\n"),
        "the record has no section Consequences",
    ),
    "no way to run it": (
        "docs-readme",
        everywhere("README.md", "make dev", "make run"),
        "the page does not mention `make dev`",
    ),
    "instructions with a command that does not exist": (
        "docs-agents",
        append("AGENTS.md", "- `make deploy-everything`\n"),
        "`make deploy-everything` is no command of this service",
    ),
    "no title": ("docs-readme", edit("README.md", "# Billing", "Billing"), "the page has no title"),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


NOTES = """# Notes

Use `make seed`, `make lint types FAST=1` and `make test ARGS="-k name"`, and make haste.

```sh
cd .. && CI=1 make tidy | make check   # make a wish
make -C ../other build
make $(TARGET) X='make up'
make open "quote
```
"""


def test_commands_in_the_notes_of_the_team_exist_in_the_makefiles(service: Path) -> None:
    (service / "docs/agents.md").write_text(NOTES)
    problems = texts_of(service, "docs-agents")
    assert problems == [f"`make {name}` is no command of this service" for name in ("seed", "tidy", "open")]
    (service / "local.mk").write_text(
        "include more.mk\n.PHONY: seed\nseed: ## Fill the database\n\tdo it\nopen::\nX := a:b\n"
    )
    (service / "more.mk").write_text("tidy other: seed\n")
    assert texts_of(service, "docs-agents") == []


def test_a_checkout_with_the_line_ends_of_windows_reads_the_same(service: Path) -> None:
    for page in (service / "docs").rglob("*.md"):
        page.write_bytes(page.read_bytes().replace(b"\n", b"\r\n"))
    assert texts_of(service, "docs-decisions") == texts_of(service, "docs-alerts") == []
