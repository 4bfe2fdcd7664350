"""A value of the wrong type, in any file that a check parses, is a finding about the file, and no bug of the check."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.check.checks import check_conventions
from fleet.conventions import Convention, conventions
from fleet.git.objects import Entry
from fleet.service.service import Service
from tests.fleet.conventions.mutations import OF_PROGRAMS

VALUES: tuple[Any, ...] = (5, "x", ["x"], [["a"]], {"a": 5}, None, [None], {5: "a"}, True)
CASES = 120

STRUCTURE = "cannot be judged: the file has a structure that the check does not know: "

PIPELINE = """\
include: {project: acme/pipelines, ref: v1}
default: {timeout: 5m}
.base: {timeout: 10m}
lint: {extends: [.base], image: {name: "python:3.13"}, services: ["postgres:18"], script: [make lint]}
"""


class Changed(Service):
    """A service in which the content of one parsed file has another value in one place."""

    contents: dict[str, Any]
    change: tuple[str, tuple[Any, ...], Any] | None = None

    def yaml(self, path: str, *more: Any) -> list[Any]:
        return self._altered(path, super().yaml(path, *more))

    def json(self, path: str) -> Any:
        return self._altered(path, super().json(path))

    def toml(self, path: str, *more: Any) -> dict[str, Any]:
        return self._altered(path, super().toml(path, *more))

    def _altered(self, path: str, content: Any) -> Any:
        self.contents[path] = content
        if self.change is None or self.change[0] != path:
            return content
        _, place, value = self.change
        return _with(content, place, value)


def _with(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    found = copy.copy(content)
    found[place[0]] = _with(content[place[0]], place[1:], value)
    return found


def _places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*place, key)
        yield from _places(value, (*place, key))


def _judge(service: Service, by: list[Convention], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("fleet.check.checks.conventions", lambda: by)
    return [one.reason for one in check_conventions(service)]


@pytest.mark.slow
@pytest.mark.xdist_group("conventions")
def test_a_value_of_another_type_anywhere_in_a_parsed_file_is_no_bug_of_a_check(
    service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (service / ".gitlab").mkdir()
    (service / ".gitlab/own.yml").write_text(PIPELINE)
    opened = Service(service)
    monkeypatch.setattr(Changed, "tree", opened.tree)
    monkeypatch.setattr(Changed, "expected", opened.expected)
    contents: dict[str, Any] = {}
    readers: dict[str, list[Convention]] = {}
    for one in conventions():
        if one.id not in OF_PROGRAMS:
            monkeypatch.setattr(Changed, "contents", {})
            assert not _judge(Changed(service), [one], monkeypatch)
            contents |= Changed.contents
            for path in Changed.contents:
                readers.setdefault(path, []).append(one)
    assert {
        "pyproject.toml",
        "uv.lock",
        ".gitlab/own.yml",
        "catalog-info.yaml",
        "specs/asyncapi.json",
    } <= readers.keys()
    places = {path: list(_places(contents[path])) for path in readers}
    fresh = Changed(service)
    _ = fresh.base, fresh._changed  # every case shares these, which programs of Git compute
    chosen = random.Random(CASES)
    for _ in range(CASES):
        path = chosen.choice(sorted(readers))
        change = path, chosen.choice(places[path]), chosen.choice(VALUES)
        changed = copy.copy(fresh)
        changed.change = change
        changed.tree = opened.tree | {path: Entry("100644", "0" * 40)}
        assert not [one for one in _judge(changed, readers[path], monkeypatch) if "has a bug" in one], change


@pytest.mark.slow
@pytest.mark.xdist_group("conventions")
@pytest.mark.parametrize(
    ("path", "text", "convention", "says"),
    [
        ("pyproject.toml", "project = 5\n", "supply-locked", STRUCTURE),
        ("pyproject.toml", "[tool]\nuv = 5\n", "supply-from-index", STRUCTURE),
        (".gitlab/own.yml", "lint: {extends: [[a]]}\n", "workflow-timeouts", "may run for as long"),
        (".gitlab/own.yml", "lint: {extends: 5}\n", "workflow-timeouts", "may run for as long"),
        (
            "deploy/overlays/production/peers.yaml",
            "kind: NetworkPolicy\n",
            "deploy-network-policy",
            "no cluster would accept",
        ),
        ("deploy/overlays/production/kustomization.yaml", "5: a\nx: b\n", "deploy-rendered", "uses 5, x, which"),
        ("catalog-info.yaml", "kind: Component\nmetadata: [a]\n", "owner-catalogue-entry", ""),
    ],
)
def test_a_file_of_another_structure_is_a_finding_with_a_remedy(
    service: Path, monkeypatch: pytest.MonkeyPatch, path: str, text: str, convention: str, says: str
) -> None:
    (service / path).parent.mkdir(exist_ok=True)
    (service / path).write_text(text)
    monkeypatch.setattr(
        "fleet.check.checks.conventions", lambda: [one for one in conventions() if one.id == convention]
    )
    found = list(check_conventions(Service(service)))
    assert found
    for one in found:
        assert says in one.reason
        assert "has a bug" not in one.reason
        assert one.remedy
        assert one.path == path or says != STRUCTURE
