"""What is written down for those who come later, and at night."""

import posixpath
import re
from collections.abc import Iterator

from fleet.conventions import Convention, Problem
from fleet.service.service import Service

RUNBOOK = "docs/runbook.md"
DECISIONS = "docs/decisions"
# Into the service's own pages: what is elsewhere cannot be looked at.
LINK = re.compile(r"""\brunbook_url:\s*["']?([\w./-]+\.md)(?:#([\w-]+))?["']?\s*$""", re.MULTILINE)
# By a word of their headings: a team writes them its own way.
TOPICS = {"health": r"health", "the database": r"database", "rolling back": r"roll(ing)? ?back", "settings": r"setting"}


class Runbook(Convention):
    """Who is called at three in the morning did not write the service, and has no time to read it."""

    id = "docs-runbook"
    remedy = "docs/runbook.md has a section on each: is it healthy, the database, roll back, settings"

    def check(self, service: Service) -> Iterator[Problem]:
        text = service.text(RUNBOOK) + service.text("docs/operations/runbook.md")
        if not text.strip():
            yield Problem(RUNBOOK, "there is no runbook")
            return
        headings = "\n".join(re.findall(r"^#+ .*", text, re.MULTILINE))
        for topic, word in TOPICS.items():
            if not re.search(word, headings, re.IGNORECASE):
                yield Problem(RUNBOOK, f"no section is about {topic}")


class AlertSections(Convention):
    """Whoever is woken by an alert follows its link, and has to find there what to do."""

    id = "docs-alerts"
    remedy = "keep a page and a heading for each runbook_url of the alerts, as in docs/runbook.md#requests-fail"

    def check(self, service: Service) -> Iterator[Problem]:
        linked: dict[str, set[str]] = {}
        for path in service.files("deploy/*.yaml", "deploy/*.yml"):
            for page, anchor in LINK.findall(service.text(path)):
                linked.setdefault(page, set()).add(anchor)
        for page, anchors in sorted(linked.items()):
            if page not in service.tree:
                if page != RUNBOOK:  # docs-runbook says so
                    yield Problem(page, "alerts link to it, and it is not there")
                continue
            there = set(map(_anchor, re.findall(r"^#+ (.*)", service.text(page), re.MULTILINE)))
            for anchor in sorted(anchors - there - {""}):
                yield Problem(page, f"an alert links to #{anchor}, and no heading is that")


def _anchor(heading: str) -> str:
    """As the forges make it of a heading."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


class Decisions(Convention):
    """What was decided without a reason that is written down is decided again every year."""

    id = "docs-decisions"
    remedy = "number them without gaps, each with a heading, Context, Decision and Consequences"

    def check(self, service: Service) -> Iterator[Problem]:
        pages = {path: re.match(r"(\d{4})-", posixpath.basename(path)) for path in service.files(f"{DECISIONS}/*.md")}
        numbers = [int(found[1]) for found in pages.values() if found]
        if 1 not in numbers:
            yield Problem(DECISIONS, "the first one is missing: why this is a service of its own")
        for number in sorted(set(range(1, max(numbers, default=0))) - set(numbers) - {1}):
            yield Problem(DECISIONS, f"there is no {number:04}")
        for path, found in pages.items():
            if found is None:
                continue
            if numbers.count(int(found[1])) > 1:
                yield Problem(path, f"{found[1]} is there {numbers.count(int(found[1]))} times")
            headings = [one.strip(" :").lower() for one in re.findall(r"^##? (.*)", service.text(path), re.MULTILINE)]
            for wanted in ("context", "decision", "consequences"):
                if wanted not in headings:
                    yield Problem(path, f"it has no section {wanted.title()}")


class Readme(Convention):
    """The first page says what the service is for and how to run it, or everybody asks."""

    id = "docs-readme"
    remedy = "say in README.md what it is for, and how it is run: make dev, make check"

    def check(self, service: Service) -> Iterator[Problem]:
        text = service.text("README.md")
        if not re.match(r"\s*# \S", text):
            yield Problem("README.md", "it has no title")
        for command in ("make dev", "make check"):
            if command not in text:
                yield Problem("README.md", f"it does not say `{command}`")
