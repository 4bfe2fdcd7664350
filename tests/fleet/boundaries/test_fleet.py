"""`fleet map --boundaries` on a fleet with known answers: ten services or pairs with a question, twenty without."""

import json
import random
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from fleet.boundaries import boundaries
from tests.fleet.boundaries.histories import TODAY, History, document, working_days_before
from tests.fleet.boundaries.spans import Node, batch
from tests.fleet.command_line import run
from tests.support.commands import git

UPDATES = (650, 500, 350, 200, 60)
"""That many days ago, all services took a new version of the template, and were deployed for it."""


class Chance(random.Random):
    """Days of a history, the same in each run."""

    def days(self, number: int, first: int = 700, last: int = 3) -> list[int]:
        return sorted((self.randint(last, first) for _ in range(number)), reverse=True)


def healthy(number: int, chance: Chance) -> History:
    """A service that changes and is deployed at any time, sometimes by chance on the same day as another service.

    Some services began in the same week and were busy at first, some are quiet, and some call others.
    """
    is_young, is_quiet = number % 5 == 0, number % 5 == 1
    born = 300 if is_young else 1000
    name = f"healthy-{number}"
    service = History(name, f"team-{number % 4}", born, consumes=(f"healthy-{number - 1}",) if number % 3 else ())
    for days in chance.days(4 if is_quiet else 14, min(born - 5, 700)) + ([*range(290, 240, -5)] if is_young else []):
        service.change_contract(days)
        service.tag(max(days - chance.randint(0, 6), 1))
    for part in ("things", "others"):
        for days in chance.days(3 if is_quiet else 18, min(born - 5, 700)):
            service.change(days, part)
    for days in () if is_quiet else chance.days(16, min(born - 5, 700)):
        number = len(service.events)
        both = {f"src/{service.package}/domain/{part}.py": f"x = {number}\n" for part in ("things", "others")}
        service.commit(days, f"Change both {number}", {**both})
    updated(service)
    return service


def updated(service: History) -> None:
    for number, days in enumerate(days for days in UPDATES if days < service.born):
        service.update(days, f"v1.{number}.0")
        service.tag(days, f"v0.{number}")


def planted(chance: Chance) -> Iterator[History]:
    """The services of ten questions: two of each kind that a history alone shows, one of passed-on fields, one of traces."""
    for number in (1, 2):
        one, other = (
            History(f"both-{number}", f"b-{number}"),
            History(f"too-{number}", f"t-{number}", consumes=(f"both-{number}",)),
        )
        for days in chance.days(12):
            one.change_contract(days, f"Add the discount of {days}")
            other.change_contract(days - chance.randint(0, 2), f"Take the discount of {days}")
        yield from (one, other)
        one, other = History(f"step-{number}", f"s-{number}"), History(f"lock-{number}", f"l-{number}")
        for days in chance.days(20):
            for service in (one, other):
                service.change(days)
                service.tag(days)
        yield from (one, other)
        quiet, busy = History(f"quiet-{number}", f"q-{number}"), History(f"busy-{number}", f"q-{number}")
        quiet.consumes = (busy.name,)
        busy.consumes = ("healthy-3",)
        for days in chance.days(6):
            quiet.change(days)
        for days in chance.days(60):
            busy.change(days)
        yield from (quiet, busy)
        apart = History(f"apart-{number}", f"a-{number}")
        for part, by in (("invoices", "ana"), ("shipments", "bo")):
            apart.files[f"src/{apart.package}/domain/{part}.py"] = ""
            for days in chance.days(60):
                apart.change(days, part, by)
        yield apart
    yield from carriers()


def carriers() -> Iterator[History]:
    """The service `middle` reads an address at `source`, and writes the address to `target`."""
    address = {f"{name}_line": {"type": "string"} for name in ("street", "city", "country", "region")}
    for name in ("source", "target"):
        yield History(name, name, files={"specs/openapi.json": document(0)})
    read, write = json.loads(document(0, **address)), json.loads(document(0))
    [answer] = read["paths"]["/v1/a"]["get"]["responses"].values()
    write["paths"] = {"/v1/a": {"post": {"requestBody": answer, "responses": {"201": {"description": ""}}}}}
    uses = {"specs/uses/source.json": json.dumps(read), "specs/uses/target.json": json.dumps(write)}
    yield History("middle", "middle", files=uses, consumes=("source", "target"))
    yield History("talker", "talker", consumes=("listener",))
    yield History("listener", "listener")


def traces(file: Path) -> Path:
    """Thirty requests with six calls each of one pair, and thirty with one call each of the healthy services."""
    lines = [*(batch(f"a{at}", "talker", "listener", 6) for at in range(30))]
    for at in range(30):
        lines += [
            batch(f"b{at}", "healthy-2", "healthy-1", at % 3 % 2),
            batch(f"c{at}", "healthy-5", "healthy-4", at % 2),
        ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


EXPECTED = {
    *(("boundary-contracts-together", frozenset({f"both-{number}", f"too-{number}"})) for number in (1, 2)),
    *(("boundary-lockstep", frozenset({f"step-{number}", f"lock-{number}"})) for number in (1, 2)),
    *(("boundary-merge", frozenset({f"quiet-{number}", f"busy-{number}"})) for number in (1, 2)),
    *(("boundary-split", frozenset({f"apart-{number}"})) for number in (1, 2)),
    ("boundary-passed-on", frozenset({"middle", "source", "target"})),
    ("boundary-chatty", frozenset({"talker", "listener"})),
}


@pytest.mark.slow
def test_a_fleet_with_ten_doubtful_boundaries_and_twenty_healthy_services_gets_exactly_ten_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boundaries, "today", lambda: TODAY)
    chance = Chance(21)
    services = [*planted(chance)]
    for service in services:
        updated(service)
    services += [healthy(number, chance) for number in range(20)]
    config = tmp_path / "fleet.toml"
    folders = [service.write(tmp_path / service.name) for service in services]
    config.write_text("".join(f'[[service]]\npath = "{folder}"\n' for folder in folders))
    arguments = ("map", "--boundaries", "--config", str(config), "--traces", str(traces(tmp_path / "traces.jsonl")))

    run(*arguments, "--format", "json", "--output", str(tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_text())

    asked = {(one["id"], frozenset(one["services"])) for one in report["questions"]}
    assert len(EXPECTED) == 10
    assert asked == EXPECTED
    assert report["unread"] == {}
    check_evidence(report, tmp_path)
    text = run(*arguments, "--output", str(tmp_path / "report.txt"))
    assert "10 questions about" in text
    written = (tmp_path / "report.txt").read_text()
    for one in report["questions"]:
        assert one["what"] in written
        assert one["ask"] in written


def check_evidence(report: Node, folder: Path) -> None:
    """Each commit of the evidence is in the repository, on its day; each service's decision is quoted."""
    for question in report["questions"]:
        assert question["ask"].endswith("?") or "." in question["ask"]
        for each in (each for group in question["evidence"] for each in group if each["day"]):
            assert date.fromisoformat(each["day"]) <= TODAY
            assert git(folder / each["service"], "cat-file", "-t", each["id"]).strip() == "commit"
        assert {record["quote"]["answer"] for record in question["records"]} == {"yes"}
    [first] = [one for one in report["questions"] if one["services"] == ["both-1", "too-1"]]
    assert len(first["evidence"]) >= 8
    assert "discount" in first["evidence"][0][0]["what"]
    assert sum(first["trend"].values()) >= len(first["evidence"])
    assert first["records"][0]["quote"]["path"] == "docs/decisions/0001-a-service-of-its-own.md"
    assert "separate team" in first["records"][0]["quote"]["question"]
    assert working_days_before(700) >= date.fromisoformat(report["window"]["first"])
