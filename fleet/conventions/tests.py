"""That what others rely on is tried by the service's own tests. They are read and not run."""

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
    """An operation that no test calls breaks unseen."""

    id = "tests-routes"
    remedy = 'call it in tests/api: `await client.get(f"/v1/…/{id}")`'

    def check(self, service: Service) -> Iterator[Problem]:
        document = openapi.read(service)
        if document is None:
            return
        called = _texts(service).requests()
        for operation in document.operations:
            if not any(fits(url, operation) for url in called.get(operation.method, ())):
                yield Problem(openapi.SPEC, f"no test calls {operation}", operation.line)


class Subscriptions(Convention):
    """A handler that no test gives a message to fails in production only, where the message is parked."""

    id = "tests-subscriptions"
    remedy = "deliver it in tests/messaging: `await mailbox.receive(NAME, body, times=2)`"

    def check(self, service: Service) -> Iterator[Problem]:
        received = _texts(service).received()
        for message in asyncapi.read(service) or []:
            if message.taken and message.name not in received:
                yield Problem(asyncapi.SPEC, f"no test receives {message.name}", message.line)


class Contracts(Convention):
    """The body that both sides agreed on is kept as a file, against which each side tests without the other."""

    id = "tests-contracts"
    remedy = f"put an agreed body into {GOLDEN}, and test that the contract reads and writes it"

    def check(self, service: Service) -> Iterator[Problem]:
        for message in asyncapi.read(service) or []:
            if (message.sent or message.taken) and _golden(message) not in service.tree:
                yield Problem(asyncapi.SPEC, f"there is no {_golden(message)}", message.line)


def _golden(message: Message) -> str:
    """For billing.invoice-issued.v1 it is …/invoice_issued_v1.json."""
    _, _, name = message.name.partition(".")
    return f"{GOLDEN}{re.sub(r'[-.]', '_', name)}.json"


# --- reading tests ----------------------------------------------------------------------------------------------------

# Stands in a text for what only a run of the test would tell.
UNKNOWN = "\0"
# Of one expression: more is no use, and two names that may be anything would make thousands.
MOST_TEXTS = 1000


class Texts:
    """Which texts an expression in the tests may stand for. Rather too many than too few: no test is overlooked."""

    def __init__(self, modules: list[Module]) -> None:
        self._modules = modules
        self._assigned = {module.path: _assignments(module) for module in modules}
        self._written = {module.path: {text for text, _ in module.strings if len(text) < 100} for module in modules}

    def requests(self) -> dict[str, set[str]]:
        """By method the URLs that tests call."""
        found: dict[str, set[str]] = {}
        for module in self._modules:
            for name, call in module.calls:
                method = name.rpartition(".")[2]
                given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "url")]
                if method in METHODS and given:
                    found.setdefault(method, set()).update(self._of(given[0], module))
                elif method in ("request", "stream") and len(given) > 1:
                    for named in self._of(given[0], module):
                        found.setdefault(named.lower(), set()).update(self._of(given[1], module))
        return found

    def received(self) -> set[str]:
        """The names of the messages that tests deliver."""
        found: set[str] = set()
        for module in self._modules:
            for name, call in module.calls:
                if name.endswith(".receive") and call.args:
                    found |= self._of(call.args[0], module)
        return found

    def _of(self, node: ast.AST, module: Module, depth: int = 0) -> set[str]:
        match node:
            case ast.Constant(value=str() as text):
                return {text}
            case ast.JoinedStr(values=parts):
                return self._joined(parts, module, depth)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined([left, right], module, depth)
            case ast.FormattedValue(value=value):
                return self._of(value, module, depth)
            case ast.Name(id=name) if depth < 5:
                return self._named(name, module, depth + 1)
        return {UNKNOWN}

    def _joined(self, parts: list[ast.expr], module: Module, depth: int) -> set[str]:
        alternatives = [sorted(self._of(part, module, depth)) for part in parts]
        return {"".join(chosen) for chosen in islice(product(*alternatives), MOST_TEXTS)}

    def _named(self, name: str, module: Module, depth: int) -> set[str]:
        places = self._modules if name in module.names else [module]
        values = [(value, place) for place in places for value in self._assigned[place.path].get(name, ())]
        if values:
            return set().union(*(self._of(value, place, depth) for value, place in values))
        # A parameter: of a helper, a fixture, or a table of cases.
        return {UNKNOWN, *self._written[module.path]}


@lru_cache(maxsize=1)  # two conventions, one after the other
def _texts(service: Service) -> Texts:
    return Texts(source.modules(service, TESTS))


def _assignments(module: Module) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in module.nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for name in source.assigned(node):
                found.setdefault(name, []).append(node.value)
    return found


def fits(url: str, operation: Operation) -> bool:
    """Whether a request to that URL reaches the operation."""
    called = re.sub(r"^https?://[^/]*|[?#].*$", "", url).split("/")
    wanted = operation.path.split("/")
    if called[0] == UNKNOWN and len(called) > 1:  # a base URL that is made elsewhere
        called = [*wanted[: len(wanted) - len(called) + 1], *called[1:]]
    return len(called) == len(wanted) and all(map(_is_segment, called, wanted))


def _is_segment(called: str, wanted: str) -> bool:
    if wanted.startswith("{"):
        return called != ""
    # Not a regular expression: one of many `.*` takes hours on a long path.
    pattern = "*".join(map(glob.escape, called.split(UNKNOWN)))
    return called == wanted or (called.strip(UNKNOWN) != "" and fnmatchcase(wanted, pattern))
