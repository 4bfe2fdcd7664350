"""Writes docs/reference/conventions.md from the classes in fleet/conventions: `python docs/generate_conventions.py`."""

from importlib import import_module
from itertools import groupby
from pathlib import Path

from fleet.conventions import conventions

PAGE = Path(__file__).resolve().parent / "reference" / "conventions.md"

INTRODUCTION = """# Conventions

<!-- Written from the classes in fleet/conventions by docs/generate_conventions.py. Do not edit. -->

`fleet check` tests these rules in every service, in addition to the platform's own files. An exception is a waiver, by the id:
[how to have one approved](../how-to/approve-an-exception.md). How an organisation adds conventions
of its own: [Add a convention](../how-to/add-a-convention.md). How a platform announces a rule before it counts, for all services or for
some: [Introduce a rule](../how-to/introduce-a-rule.md)."""


def page() -> str:
    """Return the page, as the conventions of fleet make it."""
    parts = [INTRODUCTION]
    for module, found in groupby(conventions(), key=lambda one: type(one).__module__):
        title = (import_module(module).__doc__ or "").strip().partition("\n")[0]
        rows = [f"| `{one.id}` | {cell(one.reason)} | {cell(one.remedy)} |" for one in found]
        parts.append("\n".join([f"## {title.rstrip('.')}", "", "| id | why | what to do |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
