"""What callers of an API could count on, and can no longer.

In a request all that was valid has to stay valid. In a response nothing may come that could not come before, other than
new fields, which callers ignore. tests/fleet/test_openapi_diff.py compares the verdicts with oasdiff's: where the two
differ, this is the stricter.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fleet.compatibility import Difference, differences
from fleet.openapi import JSON, Document, Node, Operation


@dataclass(frozen=True)
class Break:
    """One change that breaks callers. `operation` is as it is now; None if it is gone."""

    what: str
    operation: Operation | None = None


def breaks(old: Document, new: Document) -> list[Break]:
    """All changes from the old document to the new one that break callers. What was deprecated may go."""
    now = _operations(new)
    gone = [was for key, was in _operations(old).items() if key not in now and not was.content.get("deprecated")]
    found = [Break(f"{was} is gone") for was in gone]
    for side in (_Requests, _Responses):
        pair = side(Document(side.seen(old.content)), Document(side.seen(new.content)))
        after = _operations(pair.new)
        for key, was in _operations(pair.old).items():
            if key in after:
                found += [Break(what, now[key]) for what in pair.compared(was, after[key])]
    return found


def _operations(document: Document) -> dict[tuple[str, str], Operation]:
    """Callers do not see what a parameter in the path is called."""
    return {(one.method, re.sub(r"\{[^/{}]*\}", "{}", one.path)): one for one in document.operations}


@dataclass(frozen=True)
class _Side(ABC):
    """Two documents, as those see them who send requests or read responses."""

    old: Document
    new: Document

    @staticmethod
    @abstractmethod
    def seen(node: Any) -> Any:
        """A document without what makes no difference on this side."""

    @abstractmethod
    def harmless(self, difference: Difference) -> bool: ...

    @abstractmethod
    def compared(self, was: Operation, is_: Operation) -> Iterator[str]:
        """What breaks callers of an operation."""

    def changed(self, where: str, was: Node, is_: Node) -> Iterator[str]:
        """What breaks callers between the schemas of two parameters, headers or bodies."""
        within = (self.old.content, self.new.content)
        for one in differences(was.get("schema", {}), is_.get("schema", {}), within=within):
            if not self.harmless(one):
                yield f"{where}: {one.field} {one.change}" if one.field else f"{where} {one.change}"

    def formats(self, where: str, was: Node, is_: Node) -> Iterator[str]:
        """The same between two bodies, in each of their formats."""
        now = is_.get("content", {})
        for media_type, content in was.get("content", {}).items():
            told = where if media_type == JSON else f"{where} as {media_type}"
            yield from self.changed(told, content, now[media_type]) if media_type in now else [f"{told} is gone"]


class _Requests(_Side):
    @staticmethod
    def seen(node: Any) -> Any:
        """What a request means without a field is not part of its shape."""
        return _without(node, lambda keyword, _: keyword == "default")

    def harmless(self, difference: Difference) -> bool:
        return difference.wider

    def compared(self, was: Operation, is_: Operation) -> Iterator[str]:
        before, after = _parameters(was), _parameters(is_)
        for key, parameter in after.items():
            if parameter.get("required") and not before.get(key, {}).get("required"):
                yield f"{_named(parameter)} is required now"
        for key, parameter in before.items():
            told = _named(parameter)
            yield from self.changed(told, parameter, after[key]) if key in after else [f"{told} was removed"]
        if was.body is not None and is_.body is None:
            yield "the request has no body any more"
        if is_.body is not None and is_.body.get("required") and not (was.body or {}).get("required"):
            yield "the request needs a body now"
        if was.body is not None and is_.body is not None:
            yield from self.formats("the request", was.body, is_.body)


class _Responses(_Side):
    @staticmethod
    def seen(node: Any) -> Any:
        """Who reads an answer ignores what it does not know, whatever the schema says."""
        ignored = [("additionalProperties", False)]
        return _without(node, lambda keyword, value: keyword == "default" or (keyword, value) in ignored)

    def harmless(self, difference: Difference) -> bool:
        return difference.narrower

    def compared(self, was: Operation, is_: Operation) -> Iterator[str]:
        for status, response in was.responses.items():
            if status in is_.responses:
                yield from self.formats(status, response, is_.responses[status])
                yield from self._headers(status, response, is_.responses[status])
            elif status.startswith("2"):  # a failure that no longer happens harms nobody
                yield f"it no longer answers {status}"

    def _headers(self, status: str, was: Node, is_: Node) -> Iterator[str]:
        now = {name.lower(): self.new.resolved(header) for name, header in is_.get("headers", {}).items()}
        for name, reference in was.get("headers", {}).items():
            header, after = self.old.resolved(reference), now.get(name.lower())
            if header.get("required") and not (after or {}).get("required"):
                yield f"{status}: the header {name} may be missing now"
            if after is not None:
                yield from self.changed(f"{status}: the header {name}", header, after)


def _parameters(operation: Operation) -> dict[tuple[str, str], Node]:
    """By where they are and how callers know them: in the path by place, headers in any case."""
    found = {}
    in_path = re.findall(r"\{([^/{}]*)\}", operation.path)
    for parameter in operation.parameters:
        name, place = str(parameter["name"]), str(parameter["in"])
        if place == "path" and name in in_path:
            name = str(in_path.index(name))
        found[place, name.lower() if place == "header" else name] = parameter
    return found


def _named(parameter: Node) -> str:
    return f"the {parameter['in']} parameter {parameter['name']}"


_BY_NAME = {"properties", "schemas", "responses", "$defs"}
"""Under these, keys are names and no keywords."""


def _without(node: Any, unwanted: Callable[[str, Any], bool], *, names: bool = False) -> Any:
    """The same without some keywords."""
    if isinstance(node, list):
        return [_without(one, unwanted) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _without(value, unwanted, names=key in _BY_NAME and not names)
        for key, value in node.items()
        if names or not unwanted(key, value)
    }
