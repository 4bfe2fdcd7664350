"""Quote a service's decision 0001: the three questions that were answered before the service was made."""

import re
from dataclasses import dataclass

from fleet.boundaries.log import short
from fleet.service.service import Service

PATTERN = "docs/decisions/0001-*.md"
TEAM, DATA, MONOLITH = "separate_team", "ready_for_consistency", "limited_by_monolith"
WORDS = {MONOLITH: "existing monolith limit", TEAM: "separate team", DATA: "data consistent"}
"""Words by which a question is found in decision 0001, by the name of the template's answer to the same question."""

MOST_LINES = 500
ROW = re.compile(r"\s*\|(?P<question>[^|]*)\|(?P<answer>[^|]*)\|\s*")


@dataclass(frozen=True)
class Quote:
    """An answer in decision 0001. Without the record, the answer in .copier-answers.yml counts, and `line` is 0."""

    path: str
    line: int
    question: str
    answer: str


def quotes(service: Service) -> dict[str, Quote]:
    """Quote the answers to the three questions, by their names; empty for a service without record and answers."""
    recorded = service.answers.values
    found = {
        name: Quote("", 0, name, short(str(recorded[name]).encode()))
        for name in WORDS
        if recorded.get(name) is not None
    }
    for path in service.files(PATTERN)[:1]:
        for number, line in enumerate(service.text(path).splitlines()[:MOST_LINES], 1):
            row = ROW.fullmatch(line)
            for name in (name for name, words in WORDS.items() if row and words in row["question"]):
                found[name] = Quote(path, number, short(row["question"].encode()), short(row["answer"].encode()))  # ty: ignore[not-subscriptable]
    return found
