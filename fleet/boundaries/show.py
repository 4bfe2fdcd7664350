"""Print the questions about boundaries: text for people, JSON for programs."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date

from rich.table import Table
from rich.text import Text

from fleet import output
from fleet.boundaries.boundaries import Report
from fleet.boundaries.breaks import Break
from fleet.boundaries.days import months_between
from fleet.boundaries.questions import Question, Record
from fleet.output import count

SINCE = "none since"


def text(report: Report, *, width: int | None = None) -> str:
    """Format the questions, then the last break of each contract, then the summary."""
    console = output.console(width=width, no_color=True if width else None)
    unfolded = not console.is_terminal  # a program that reads the text expects one line for each fact
    with console.capture() as printed:
        for number, one in enumerate(report.questions, 1):
            console.print(Text(f"{number}. {one.what}", style="bold"), soft_wrap=unfolded)
            for line in _lines(one):
                console.print(Text(f"   {line}"), soft_wrap=unfolded)
            console.print()
        contracts = Table("service", "contract", "last break", "months ago", "what", box=None, pad_edge=False)
        for cells in breaks(report):
            contracts.add_row(*(Text(cell, overflow="fold") for cell in cells))
        if contracts.row_count:
            console.print(contracts)
            console.print()
        for name, reason in report.unread.items():
            console.print(Text(f"not read: {name}: {reason}", style="yellow"), soft_wrap=unfolded)
        console.print(Text(summary(report)), soft_wrap=unfolded)
    return printed.get()


def breaks(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each contract: service, contract, last break, months since then, and what broke."""
    for name, past in report.pasts.items():
        for broken in past.breaks:
            yield name, broken.contract, *_break(broken, report.last)


def _lines(one: Question) -> list[str]:
    """Return the lines below the first line of a question."""
    lines = [f"measure: {one.base}"]
    if one.trend:
        lines.append("by quarter: " + ", ".join(f"{name} {number}" for name, number in one.trend.items()))
    for group in one.evidence:
        lines.append(
            "  " + "; ".join(" ".join(filter(None, (each.day, each.service, each.id, each.what))) for each in group)
        )
    lines += [describe_record(record) for record in one.records]
    return [*lines, f"ask: {one.ask}"]


def describe_record(record: Record) -> str:
    """Quote the answer of a service in its decision 0001, with the doubt."""
    if (quote := record.quote) is None:
        return f"{record.service} has no decision 0001 with the reason why it is a service: write the record"
    place = f"{quote.path}, line {quote.line}," if quote.line else ".copier-answers.yml"
    answer = f"{record.service}: {place} answers “{quote.question}” with “{quote.answer}”"
    return f"{answer}. {_DOUBTS.get(quote.answer.casefold(), 'Is the answer known by now?')}"


_DOUBTS = {"yes": "Does this yes still hold?", "no": "What has spoken for a service of its own since?"}


def _break(broken: Break, last: date) -> tuple[str, str, str]:
    months = str(months_between(broken.day, last))
    if not broken.commit:
        return f"{SINCE} {broken.day}", f"{months} or more", ""
    return f"{broken.day} {broken.commit[:10]}", months, broken.what


def summary(report: Report) -> str:
    """Return the numbers and the window in a sentence."""
    read = f"{count(len(report.pasts), 'service')} from {report.first} to {report.last}"
    return f"{count(len(report.questions), 'question')} about {read}, without the commits of the platform"


def as_json(report: Report) -> str:
    written = {
        "window": {"first": report.first, "last": report.last},
        "questions": [asdict(one) for one in report.questions],
        "services": {
            name: {
                "owner": past.owner,
                "commits": len(past.code),
                "contract_changes": len(past.contracts),
                "deployments": len(past.deployments),
                "breaks": [
                    {**asdict(one), "months": months_between(one.day, report.last), "is_break": bool(one.commit)}
                    for one in past.breaks
                ],
            }
            for name, past in report.pasts.items()
        },
        "unread": report.unread,
    }
    return json.dumps(written, indent=2, default=date.isoformat) + "\n"
