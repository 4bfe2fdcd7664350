"""Tests: the service's tests cover what other services rely on. The tests are read and not run."""

import ast
import glob
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import islice, product

from fleet.conventions import Convention, Problem
from fleet.service import asyncapi, openapi, source
from fleet.service.asyncapi import Message
from fleet.service.openapi import METHODS, Operation
from fleet.service.service import Service
from fleet.service.source import Module

TESTS = "tests/*.py"
GOLDEN = "tests/messaging/golden/"


class Routes(Convention):
    """If no test calls an operation, nobody notices when the operation breaks."""

    id = "tests-routes"
    remedy = 'call the operation in tests/api: `await client.get(f"/v1/…/{id}")`'

    def check(self, service: Service) -> Iterator[Problem]:
        document = openapi.read(service)
        if document is None:
            return
        called = _texts(service).requests()
        for operation in document.operations:
            if not any(fits(url, operation) for url in called.get(operation.method, ())):
                yield Problem(openapi.SPEC, f"no test calls {operation}", operation.line)


class Subscriptions(Convention):
    """A handler without a test fails only in production, where its message is parked."""

    id = "tests-subscriptions"
    remedy = "deliver the message in tests/messaging: `await mailbox.receive(NAME, body, times=2)`"

    def check(self, service: Service) -> Iterator[Problem]:
        received = _texts(service).received_messages()
        for message in asyncapi.read(service) or []:
            if message.received and message.name not in received and not _is_of_the_chassis(message):
                yield Problem(asyncapi.SPEC, f"no test receives {message.name}", message.line)


class Contracts(Convention):
    """With an example of the agreed body in a file, sender and receiver can test without each other."""

    id = "tests-contracts"
    remedy = f"put an agreed body into {GOLDEN}, and test that the contract reads and writes the file"

    def check(self, service: Service) -> Iterator[Problem]:
        for message in asyncapi.read(service) or []:
            ours = (message.sent or message.received) and not _is_of_the_chassis(message)
            if ours and _golden(message) not in service.tree:
                yield Problem(asyncapi.SPEC, f"there is no {_golden(message)}", message.line)


def _is_of_the_chassis(message: Message) -> bool:
    """Return whether the chassis defines and handles the message, and so the tests of the chassis cover the message."""
    return message.name.endswith(".advance-saga.v1")


def _golden(message: Message) -> str:
    """Return the path of the agreed body: …/invoice_issued_v1.json for billing.invoice-issued.v1."""
    _, _, name = message.name.partition(".")
    return f"{GOLDEN}{re.sub(r'[-.]', '_', name)}.json"


# --- Reading tests ----------------------------------------------------------------------------------------------------

# Stands in a text for a part that only a run of the test would show.
UNKNOWN = "\0"
# The most texts that one expression may have: two names with many values each would have thousands.
MOST_TEXTS = 1000


class Texts:
    """Find the texts that an expression in the tests may stand for: rather too many, so that no test is overlooked."""

    def __init__(self, modules: list[Module]) -> None:
        self._modules = modules
        self._assigned = {module.path: _assignments(module) for module in modules}
        self._written = {module.path: {text for text, _ in module.strings if len(text) < 100} for module in modules}

    def requests(self) -> dict[str, set[str]]:
        """Return the URLs that tests call, by method."""
        found: dict[str, set[str]] = {}
        for module in self._modules:
            for name, call in module.calls:
                method = name.rpartition(".")[2]
                given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "url")]
                if method in METHODS and given:
                    found.setdefault(method, set()).update(self._evaluate(given[0], module))
                elif method in ("request", "stream") and len(given) > 1:
                    for named in self._evaluate(given[0], module):
                        found.setdefault(named.lower(), set()).update(self._evaluate(given[1], module))
        return found

    def received_messages(self) -> set[str]:
        """Return the names of the messages that tests deliver."""
        found: set[str] = set()
        for module in self._modules:
            for name, call in module.calls:
                if name.endswith(".receive") and call.args:
                    found |= self._evaluate(call.args[0], module)
        return found

    def _evaluate(self, node: ast.AST, module: Module, depth: int = 0) -> set[str]:
        match node:
            case ast.Constant(value=str() as text):
                return {text}
            case ast.JoinedStr(values=parts):
                return self._join(parts, module, depth)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._join([left, right], module, depth)
            case ast.FormattedValue(value=value):
                return self._evaluate(value, module, depth)
            case ast.Name(id=name) if depth < 5:
                return self._look_up(name, module, depth + 1)
        return {UNKNOWN}

    def _join(self, parts: list[ast.expr], module: Module, depth: int) -> set[str]:
        alternatives = [sorted(self._evaluate(part, module, depth)) for part in parts]
        return {"".join(chosen) for chosen in islice(product(*alternatives), MOST_TEXTS)}

    def _look_up(self, name: str, module: Module, depth: int) -> set[str]:
        places = self._modules if name in module.names else [module]
        values = [(value, place) for place in places for value in self._assigned[place.path].get(name, ())]
        if values:
            return set().union(*(self._evaluate(value, place, depth) for value, place in values))
        # The name is a parameter of a helper, a fixture, or a table of cases.
        return {UNKNOWN, *self._written[module.path]}


@lru_cache(maxsize=1)  # two conventions read the texts of the same service, one after the other
def _texts(service: Service) -> Texts:
    return Texts(source.modules(service, TESTS))


def _assignments(module: Module) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in (*module.of(ast.Assign), *module.of(ast.AnnAssign)):
        if node.value is not None:
            for name in source.assigned(node):
                found.setdefault(name, []).append(node.value)
    return found


def fits(url: str, operation: Operation) -> bool:
    """Return whether a request to that URL reaches the operation."""
    called = re.sub(r"^https?://[^/]*|[?#].*$", "", url).split("/")
    wanted = operation.path.split("/")
    if called[0] == UNKNOWN and len(called) > 1:  # the URL begins with a part that the test gets from elsewhere
        called = [*wanted[: len(wanted) - len(called) + 1], *called[1:]]
    return len(called) == len(wanted) and all(map(_is_segment, called, wanted))


def _is_segment(called: str, wanted: str) -> bool:
    if wanted.startswith("{"):
        return called != ""
    # A regular expression with many `.*` would take hours on a long path.
    pattern = "*".join(map(glob.escape, called.split(UNKNOWN)))
    return called == wanted or (called.strip(UNKNOWN) != "" and fnmatchcase(wanted, pattern))
