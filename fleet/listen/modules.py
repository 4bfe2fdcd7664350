"""Write the modules of a listener: the contract with its handler, the use case, and the test."""

import ast
from dataclasses import dataclass

from fleet.client.uses import snake
from fleet.listen.contract import Code

MODULE = '''"""The {kind} {message}: its contract and its handler."""

from typing import Annotated, Any, Literal

from chassis import fields
from chassis.database import UnitOfWork
from chassis.messages import Contract, OnEvent, OnJob
from pydantic import Field

from {package}.usecases.{stem} import {command}, {usecase}


{classes}


async def on_{stem}({kind}: {contract}, uow: UnitOfWork) -> None:
    command = {command}({arguments})
    await {usecase}(command, uow{now})


INCOMING = [
    {line},
]
'''
USECASE = '''"""The use case of the {kind} {message}."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from chassis.database import UnitOfWork
from chassis.money import Money


@dataclass(frozen=True, kw_only=True)
class {command}:
{fields}


async def {usecase}(command: {command}, uow: UnitOfWork{now}) -> None:
    """Not written yet: until then each message is tried again and parked, so that none is lost."""
    raise NotImplementedError("write the use case of {message}")
'''
TEST = '''import json
from pathlib import Path

import pytest
from chassis.testing import Mailbox

from {package}.messaging.{stem} import {contract}

GOLDEN = json.loads((Path(__file__).parent / "golden" / "{golden}").read_text())


def test_the_agreed_body_is_still_read() -> None:
    message = {contract}.model_validate_json(json.dumps(GOLDEN))
    assert message.model_dump(mode="json") == GOLDEN


async def test_{stem}_is_not_lost_while_its_use_case_is_not_written(mailbox: Mailbox) -> None:
    """Put a test of the use case here: deliver the message twice, and assert what it changes."""
    with pytest.raises(NotImplementedError):
        await mailbox.receive("{message}", GOLDEN | {{"unknown": "ignored"}}, times=2)
'''


@dataclass(frozen=True)
class Names:
    """The names of a message: `orders--reports.order-withdrawn.v2` has the words `order-withdrawn` and the queue `reports`."""

    own: str
    package: str
    message: str
    sender: str
    queue: str
    words: str
    version: int

    @property
    def stem(self) -> str:
        """The name of the modules and the end of the names of functions: `order_withdrawn`, `order_withdrawn_v2`."""
        return snake(self.words) if self.version == 1 else f"{snake(self.words)}_v{self.version}"

    @property
    def contract(self) -> str:
        return f"{self._camel}V{self.version}"

    @property
    def _camel(self) -> str:
        return "".join(word[0].upper() + word[1:] for word in self.words.split("-"))

    @property
    def module(self) -> str:
        return f"src/{self.package}/messaging/{self.stem}.py"

    @property
    def usecase_file(self) -> str:
        return f"src/{self.package}/usecases/{self.stem}.py"

    @property
    def test(self) -> str:
        return f"tests/messaging/test_{self.stem}.py"

    @property
    def golden(self) -> str:
        """The path at which the convention tests-contracts looks for the agreed body."""
        return f"tests/messaging/golden/{self.words.replace('-', '_')}_v{self.version}.json"

    def of(self, kind: str) -> dict[str, str]:
        """Return the names in the modules. A job is named for its work, and an event for what has happened."""
        is_job = kind == "job"
        command = self._camel if is_job else f"ReactTo{self._camel}"
        return {
            "kind": kind,
            "message": self.message,
            "package": self.package,
            "stem": self.stem,
            "contract": self.contract,
            "command": command if self.version == 1 else f"{command}{self.version}",
            "usecase": self.stem if is_job else f"react_to_{self.stem}",
        }


def module(names: Names, kind: str, code: Code) -> str:
    """Write the module of the contract and its handler."""
    listed = f"{names.contract}, on_{names.stem}"
    line = f'OnEvent("{names.message}", {listed})'
    if kind == "job":
        line = f"OnJob({listed}, queue={names.queue!r})" if names.queue else f"OnJob({listed})"
    arguments = ", ".join(f"{field}={kind}.{field}" for field in code.plain)
    now = f", now={kind}.occurred_at" if code.has_time else ""
    return MODULE.format(**names.of(kind), classes=code.classes, arguments=arguments, now=now, line=line)


def usecase(names: Names, kind: str, code: Code) -> str:
    """Write the module of the use case, which a team completes."""
    fields = "\n".join(f"    {field}: {type_}" for field, type_ in code.plain.items()) or "    pass"
    return USECASE.format(**names.of(kind), fields=fields, now=", *, now: datetime" if code.has_time else "")


def test(names: Names) -> str:
    """Write the test, which passes as long as the use case is not written."""
    return TEST.format(**names.of(""), golden=names.golden.rpartition("/")[2])


def fields(module: str, contract: str) -> tuple[str, ...]:
    """Return the names on the wire of a contract's fields; none if the module does not have the contract."""
    found = []
    for one in _classes(module):
        for node in one.body if one.name == contract else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                aliases = [
                    keyword.value.value
                    for call in ast.walk(node.annotation)
                    if isinstance(call, ast.Call)
                    for keyword in call.keywords
                    if keyword.arg == "alias" and isinstance(keyword.value, ast.Constant)
                ]
                found.append(str((aliases or [node.target.id])[0]))
    return tuple(found)


def replaced(module: str, fresh: str, contract: str) -> str:
    """Replace a contract and the classes that it needs by the classes of a fresh module, and add the imports of these."""
    # `splitlines` would also split at characters that end no line in Python.
    lines, new = module.split("\n"), fresh.split("\n")
    names = {one.name for one in _classes(fresh)} | _needed(module, contract)
    classes = [one for one in _classes(module) if one.name in names]
    at = classes[0].lineno - 1
    for one in reversed(classes):
        del lines[one.lineno - 1 : one.end_lineno]
    fresh_classes = _classes(fresh)
    lines[at:at] = new[fresh_classes[0].lineno - 1 : fresh_classes[-1].end_lineno]
    imports = [one for one in ast.parse(fresh).body if isinstance(one, ast.ImportFrom)]
    first = ast.parse(module).body[0]
    after = first.end_lineno or 0 if isinstance(first, ast.Expr) else 0
    lines[after:after] = [
        ast.unparse(one) for one in imports if (one.module or "").partition(".")[0] in ("chassis", "pydantic", "typing")
    ]
    return "\n".join(lines) + "\n"


def _needed(module: str, contract: str) -> set[str]:
    """Return the names of a contract and of all contracts in its fields."""
    known = {one.name: one for one in _classes(module)}
    found, waiting = set[str](), [contract]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += [node.id for node in ast.walk(known[name]) if isinstance(node, ast.Name) and node.id in known]
    return found


def _classes(module: str) -> list[ast.ClassDef]:
    """Return the classes of contracts. A file that is no Python has none."""
    try:
        parsed = ast.parse(module).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [
        one
        for one in parsed
        if isinstance(one, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Contract" for base in one.bases)
    ]
