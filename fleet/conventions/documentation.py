"""Documentation: the runbook, the decisions, the README, and the instructions for coding tools."""

import posixpath
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress

from fleet.conventions import Convention, Problem
from fleet.service.service import Service

RUNBOOK = "docs/runbook.md"
DECISIONS = "docs/decisions"
# A link to a page of the service. Pages elsewhere cannot be checked.
LINK = re.compile(r"""\brunbook_url:\s*["']?([\w./-]+\.md)(?:#([\w-]+))?["']?\s*$""", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"^([^\s:#=][^:#=\n]*):", re.MULTILINE)
# Each topic with a pattern that a heading has to contain, because each team words its headings differently.
TOPICS = {"health": r"health", "the database": r"database", "rolling back": r"roll(ing)? ?back", "settings": r"setting"}


class Runbook(Convention):
    """The person on call did not write the service, and has no time to read its code."""

    id = "docs-runbook"
    remedy = "write in docs/runbook.md a section about each of health, the database, rolling back and settings"

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
    """The person on call follows the link of an alert, and needs instructions there."""

    id = "docs-alerts"
    remedy = "keep a page and a heading for each runbook_url of the alerts, as in docs/runbook.md#requests-fail"

    def check(self, service: Service) -> Iterator[Problem]:
        linked: dict[str, set[str]] = {}
        for path in service.files("deploy/*.yaml", "deploy/*.yml"):
            for page, anchor in LINK.findall(service.text(path)):
                linked.setdefault(page, set()).add(anchor)
        for page, anchors in sorted(linked.items()):
            if page not in service.tree:
                if page != RUNBOOK:  # docs-runbook reports a missing runbook
                    yield Problem(page, "alerts link to this page, and it is missing")
                continue
            there = set(map(_anchor, re.findall(r"^#+ (.*)", service.text(page), re.MULTILINE)))
            for anchor in sorted(anchors - there - {""}):
                yield Problem(page, f"an alert links to #{anchor}, and no heading has this anchor")


def _anchor(heading: str) -> str:
    """Return the anchor that Git hosts make from a heading."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


class Decisions(Convention):
    """A decision without a recorded reason is discussed again every year."""

    id = "docs-decisions"
    remedy = "number the records without gaps, and give each a heading, Context, Decision and Consequences"

    def check(self, service: Service) -> Iterator[Problem]:
        pages = {path: re.match(r"(\d{4})-", posixpath.basename(path)) for path in service.files(f"{DECISIONS}/*.md")}
        numbers = [int(found[1]) for found in pages.values() if found]
        if 1 not in numbers:
            yield Problem(DECISIONS, "record 0001 is missing, which explains why this is a separate service")
        for number in sorted(set(range(1, max(numbers, default=0))) - set(numbers) - {1}):
            yield Problem(DECISIONS, f"there is no record {number:04}")
        for path, found in pages.items():
            if found is None:
                continue
            if numbers.count(int(found[1])) > 1:
                yield Problem(path, f"{numbers.count(int(found[1]))} records have the number {found[1]}")
            headings = [one.strip(" :").lower() for one in re.findall(r"^##? (.*)", service.text(path), re.MULTILINE)]
            for wanted in ("context", "decision", "consequences"):
                if wanted not in headings:
                    yield Problem(path, f"the record has no section {wanted.title()}")


class Readme(Convention):
    """If the first page does not explain what the service is for and how to run it, everybody asks."""

    id = "docs-readme"
    remedy = "explain in README.md what the service is for, and how to run it: make dev, make check"

    def check(self, service: Service) -> Iterator[Problem]:
        text = service.text("README.md")
        if not re.match(r"\s*# \S", text):
            yield Problem("README.md", "the page has no title")
        for command in ("make dev", "make check"):
            if command not in text:
                yield Problem("README.md", f"the page does not mention `{command}`")


class AgentCommands(Convention):
    """A coding tool runs what its instructions name, and guesses where a command does not exist."""

    id = "docs-agents"
    remedy = "name in AGENTS.md and docs/agents.md targets of the Makefile or local.mk, as `make help` lists them"

    def check(self, service: Service) -> Iterator[Problem]:
        pages = [path for path in ("AGENTS.md", "docs/agents.md") if path in service.tree]
        named = [(path, *found) for path in pages for found in _make_targets(service.text(path))]
        if not named:
            return
        makefiles = "\n".join(map(service.text, service.files("Makefile", "*.mk")))
        targets = {name for line in TARGET.findall(makefiles) for name in line.split()}
        for path, line, target in named:
            if target not in targets:
                yield Problem(path, f"`make {target}` is no command of this service", line)


def _make_targets(page: str) -> Iterator[tuple[int, str]]:
    """Find the targets that commands in the code of a page name, each with its line."""
    for code in CODE.finditer(page):
        first = page.count("\n", 0, code.start()) + 1
        for number, line in enumerate(code[0].strip("`").splitlines(), first):
            if "make " in line:
                yield from ((number, target) for target in _targets(line))


def _targets(line: str) -> Iterator[str]:
    """Find the targets of each `make` in a line of shell: `CI=1 make a b X="1 2" && make c` has a, b and c."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    command = ""
    with suppress(ValueError):  # shlex refuses a quote that is not closed: the rest of the line is left out
        for word in words:
            if set(word) <= set("();<>|&"):
                command = ""
            elif "=" in word or word == "$":
                continue
            elif not command:
                command = word
            elif word.startswith("-"):
                command = "with options"  # with an option such as -C, the targets are in another Makefile
            elif command == "make" and re.fullmatch(r"[a-z][\w-]*", word):
                yield word
