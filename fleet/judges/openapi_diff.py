"""Find the changes of an API that break its callers.

A valid request has to stay valid. A response may not contain anything new, other than new fields, which callers ignore, and
new failures, which callers must expect. Descriptions and examples may change; a field of OpenAPI that these rules do not know
may not. Tests compare the verdicts with oasdiff's: where the two differ, this module is stricter.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

from fleet.judges import openapi_security
from fleet.schemas.compatibility import Difference, differences
from fleet.schemas.normal_form import text
from fleet.service.openapi import JSON, METHODS, Document, Node, Operation

WORDS = {"description", "example", "examples", "externalDocs", "operationId", "summary", "tags"}
"""Keywords that have no effect on valid requests and responses. `x-…` is ignored too."""
STYLES = {"path": "simple", "header": "simple", "query": "form", "cookie": "form"}
ONLY_ON_REQUEST = {"206", "304"}
"""Statuses that a caller gets only on request, by Range or If-None-Match."""
OF_DOCUMENT = {"openapi", "info", "paths", "components", "security", "servers"}
OF_PATH = {*METHODS, "parameters", "servers"}
OF_OPERATION = {"deprecated", "parameters", "requestBody", "responses", "security", "servers"}
OF_VALUE = {"name", "in", "required", "deprecated", "schema", "content", "style", "explode", "allowReserved"}
OF_VALUE |= {"allowEmptyValue"}
OF_BODY = {"content", "required"}
OF_RESPONSE = {"content", "headers"}
OF_MEDIA_TYPE = {"schema"}


@dataclass(frozen=True)
class BreakingChange:
    """A change that breaks callers.

    `operation` is the operation in the new document; None if it was removed. `was` is the operation in the old document. Both are
    None if the change concerns the whole document.
    """

    what: str
    operation: Operation | None = None
    was: Operation | None = None


def find_breaking_changes(old: Document, new: Document) -> list[BreakingChange]:
    """Find all changes that break callers. A deprecated operation may be removed."""
    for document in (old, new):
        if not document.version.startswith("3.1."):
            return [BreakingChange(f"the document is of OpenAPI {document.version}, and only 3.1 can be compared")]
    now = _operations(new)
    gone = [was for key, was in _operations(old).items() if key not in now and not was.content.get("deprecated")]
    found = [BreakingChange(f"{was} is gone", None, was) for was in gone]
    others = _Requests(old, new).compare_other_fields("the document", old.content, new.content, OF_DOCUMENT)
    found += [BreakingChange(what) for what in others]
    for key, was in _operations(old).items():
        if key in now:
            sides = (
                side for one in (_Operations, _Requests, _Responses) for side in one(old, new).compare(was, now[key])
            )
            found += [BreakingChange(what, now[key], was) for what in sides]
    return found


def _operations(document: Document) -> dict[tuple[str, str], Operation]:
    """The operations by method and path, without the names of parameters in the path, which callers do not see."""
    return {(one.method, re.sub(r"\{[^/{}]*\}", "{}", one.path)): one for one in document.operations}


@dataclass(frozen=True)
class _Side(ABC):
    """A comparison of one side of an API in the old and the new document. Each method yields changes that break callers."""

    old: Document
    new: Document

    @abstractmethod
    def compare(self, was: Operation, is_: Operation) -> Iterator[str]:
        """Compare an operation."""

    def is_harmless(self, difference: Difference) -> bool:
        raise NotImplementedError

    def compare_schemas(self, where: str, was: Node, is_: Node) -> Iterator[str]:
        """Compare the schemas of two parameters, headers or bodies."""
        within = (self.old.content, self.new.content)
        for one in differences(was.get("schema", {}), is_.get("schema", {}), within=within):
            if not self.is_harmless(one):
                yield f"{where}: {one.field} {one.change}" if one.field else f"{where} {one.change}"

    def compare_bodies(self, where: str, was: Node, is_: Node) -> Iterator[str]:
        """Compare two bodies in each of their media types."""
        now = is_.get("content", {})
        for media_type, content in was.get("content", {}).items():
            subject = where if media_type == JSON else f"{where} as {media_type}"
            if media_type not in now:
                yield f"{subject} is gone"
                continue
            yield from self.compare_schemas(subject, content, now[media_type])
            yield from self.compare_other_fields(subject, content, now[media_type], OF_MEDIA_TYPE)

    def compare_values(self, where: str, was: Node, is_: Node, place: str) -> Iterator[str]:
        """Compare the styles and schemas of two parameters or two headers."""
        styles = [one.get("style", STYLES[place]) for one in (was, is_)]
        explodes = [one.get("explode", style == "form") for one, style in zip((was, is_), styles, strict=True)]
        for keyword, (before, now) in (("style", styles), ("explode", explodes)):
            if before != now:
                yield f"{where}: {keyword} is {text(now)}, was {text(before)}"
        for keyword in ("allowReserved", "allowEmptyValue"):
            if was.get(keyword, False) and not is_.get(keyword, False):
                yield f"{where}: {keyword} is false, was true"
        if ("content" in was) != ("content" in is_):
            yield f"{where} is {'a document' if 'content' in is_ else 'plain'} now"
        yield from self.compare_bodies(where, was, is_)
        yield from self.compare_schemas(where, was, is_)
        yield from self.compare_other_fields(where, was, is_, OF_VALUE)

    def compare_other_fields(self, where: str, was: Node, is_: Node, judged: Set[str]) -> Iterator[str]:
        """Compare fields for which there is no rule: each must be unchanged."""
        for keyword in sorted((was.keys() | is_.keys()) - judged - WORDS):
            if not keyword.startswith("x-") and not self._is_same(was.get(keyword), is_.get(keyword), set()):
                yield f"{where}: {keyword} has changed, and this rule cannot judge the change"

    def _is_same(self, was: Any, is_: Any, assumed: set[tuple[str, str]]) -> bool:
        """Return whether two values are equal when references are followed."""
        pair = (text(was), text(is_))
        if pair in assumed:
            return True
        assumed.add(pair)
        if isinstance(was, dict) and isinstance(is_, dict):
            was, is_ = self.old.resolved(was), self.new.resolved(is_)
            return was.keys() == is_.keys() and all(self._is_same(was[key], is_[key], assumed) for key in was)
        if isinstance(was, list) and isinstance(is_, list):
            return len(was) == len(is_) and all(self._is_same(*both, assumed) for both in zip(was, is_, strict=True))
        return text(was) == text(is_)


class _Operations(_Side):
    """Compare what is outside of request and response: servers and security."""

    def compare(self, was: Operation, is_: Operation) -> Iterator[str]:
        now = {text(one) for one in _servers(self.new, is_)}
        for server in _servers(self.old, was):
            if text(server) not in now:
                yield f"the server {server['url']} is gone"
        yield from openapi_security.find_closed_ways(self.old, self.new, was, is_)
        yield from self.compare_other_fields("the operation", was.content, is_.content, OF_OPERATION)
        yield from self.compare_other_fields("the path", was.item, is_.item, OF_PATH)


class _Requests(_Side):
    def is_harmless(self, difference: Difference) -> bool:
        """Return whether the old requests stay valid. A default is not part of the shape of a request."""
        return difference.wider or difference.keyword == "default"

    def compare(self, was: Operation, is_: Operation) -> Iterator[str]:
        before, after = _parameters(was), _parameters(is_)
        for key, parameter in after.items():
            if parameter.get("required") and not before.get(key, {}).get("required"):
                yield f"{_named(parameter)} is required now"
        for key, parameter in before.items():
            subject = _named(parameter)
            if key in after:
                yield from self.compare_values(subject, parameter, after[key], key[0])
            else:
                yield f"{subject} was removed"
        if was.body is not None and is_.body is None:
            yield "the request has no body any more"
        if is_.body is not None and is_.body.get("required") and not (was.body or {}).get("required"):
            yield "the request needs a body now"
        if was.body is not None and is_.body is not None:
            yield from self.compare_bodies("the request", was.body, is_.body)
            yield from self.compare_other_fields("the request", was.body, is_.body, OF_BODY)


class _Responses(_Side):
    def is_harmless(self, difference: Difference) -> bool:
        """Return whether callers can still read the responses.

        Callers ignore unknown fields, even if the schema forbids them.
        """
        return difference.narrower or difference.keyword in ("default", "closed")

    def compare(self, was: Operation, is_: Operation) -> Iterator[str]:
        for status in was.responses:
            # A failure that no longer happens breaks no caller.
            if status.startswith("2") and _answer(is_, status) is None:
                yield f"the operation no longer answers {status}"
        for status in sorted(is_.responses.keys() - ONLY_ON_REQUEST):
            # A generated client treats an unknown success as a failure, or does not read its body.
            if status.startswith(("2", "3")) and _answer(was, status) is None:
                yield f"the operation may answer {status} now"
        for status in dict.fromkeys([*was.responses, *is_.responses]):
            before, now = _answer(was, status), _answer(is_, status)
            if before is not None and now is not None:
                yield from self.compare_bodies(status, before, now)
                yield from self._compare_headers(status, before, now)
                yield from self.compare_other_fields(status, before, now, OF_RESPONSE)

    def _compare_headers(self, status: str, was: Node, is_: Node) -> Iterator[str]:
        now = {name.lower(): self.new.resolved(header) for name, header in is_.get("headers", {}).items()}
        for name, reference in was.get("headers", {}).items():
            header, after = self.old.resolved(reference), now.get(name.lower())
            if header.get("required") and not (after or {}).get("required"):
                yield f"{status}: the header {name} may be missing now"
            if after is not None:
                yield from self.compare_values(f"{status}: the header {name}", header, after, "header")


def _answer(operation: Operation, status: str) -> Node | None:
    """Return the response of a status: its own entry, the entry of its range, or the default."""
    covering = (status, f"{status[0]}XX", "default")
    return next((operation.responses[one] for one in covering if one in operation.responses), None)


def _servers(document: Document, operation: Operation) -> list[Node]:
    """Return the servers of an operation, without descriptions."""
    levels = (operation.content, operation.item, document.content)
    servers = next((one["servers"] for one in levels if one.get("servers")), [{"url": "/"}])
    return [{key: one[key] for key in one if key in ("url", "variables")} for one in servers]


def _parameters(operation: Operation) -> dict[tuple[str, str], Node]:
    """Return the parameters by place and by the name that callers see.

    A parameter of the path is known by its position, and a header without regard to case.
    """
    found = {}
    in_path = re.findall(r"\{([^/{}]*)\}", operation.path)
    for parameter in operation.parameters:
        name, place = str(parameter["name"]), str(parameter["in"])
        if place == "path" and name in in_path:
            name = str(in_path.index(name))
        if place == "header":
            name = name.lower()
            if name in ("accept", "authorization", "content-type"):
                continue  # OpenAPI ignores these: `content` and `security` describe them
        found[place, name] = parameter
    return found


def _named(parameter: Node) -> str:
    return f"the {parameter['in']} parameter {parameter['name']}"
