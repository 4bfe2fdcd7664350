"""Write the module of a neighbour: Pydantic models, errors, and one async function for each operation."""

import ast
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

from fleet.client.formatting import formatted
from fleet.client.functions import error_class, function
from fleet.client.models import models
from fleet.client.uses import MALFORMED, Inexpressible, module_of
from fleet.errors import FleetError
from fleet.service.openapi import Document, Node

MARK = "# Written by `fleet client`. Digests of specs/uses and of this code: "
"""The start of the line with the digests, which the gate specs-check of a service compares too."""
HEAD = '''"""The operations of {name} that this service calls, and their models.

`fleet client {name}` writes this module again after a change of specs/uses/{name}.json. {maker} makes
the client that each function takes.
"""
'''
IMPORTS = """
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

import httpx2
from pydantic_core import to_jsonable_python
"""
POLICY = """
from typing import TypeVar

from chassis import neighbours as _neighbours
"""
"""Further imports in a service with the part `neighbours` of the chassis, whose calls have a policy."""
FALLBACK = '_F = TypeVar("_F", bound=_neighbours.Fallback[Any])\n'
ERRORS = '''
class {title}Error(Exception):
    """{name} gave another answer than the operation returns. `problem` is the body, and `code` the code in the body."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(f"{{response.request.method}} {{response.request.url.path}} answered {{response.status_code}}")
        self.status = response.status_code
        try:
            body = response.json()
        except ValueError:
            body = None
        self.problem: dict[str, Any] = body if isinstance(body, dict) else {{}}
        self.code = str(self.problem.get("code", ""))
'''
HELPERS = """
def _given(values: Mapping[str, object]) -> dict[str, Any]:
    return {name: to_jsonable_python(value) for name, value in values.items() if value is not None}


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(value) for name, value in _given(values).items()}


def _text(value: object) -> str:
    plain = to_jsonable_python(value)
    return str(plain).lower() if isinstance(plain, bool) else str(plain)


def _segment(value: object) -> str:
    return quote(_text(value), safe="")
"""


def write(name: str, uses: Node, config: Path, *, has_policy: bool = False) -> str:
    """Write the module for a document of uses, by the formatter's configuration. Raises FleetError.

    With a policy, the functions raise NeighbourUnavailable without an answer, or return their fall-back value.
    """
    try:
        code = formatted(compose(name, uses, has_policy=has_policy), config)
    except (Inexpressible, *MALFORMED) as reason:
        raise FleetError(f"specs/uses/{name}.json: {reason}") from None
    digests = f"{digest(json.dumps(uses, ensure_ascii=False))} {digest(code)}"
    maker = f'`settings.client_for("{name}")`' if has_policy else "`chassis.client.service_client`"
    return f"{HEAD.format(name=name, maker=maker)}\n{MARK}{digests}\n\n{code}"


def compose(name: str, uses: Node, *, has_policy: bool = False) -> str:
    """Write the code without its head and without a format. Raises Inexpressible."""
    document = Document(json.loads(json.dumps(uses)))
    title = "".join(word.title() for word in module_of(name).split("_"))
    schemas: Node = {}
    functions = [function(title, document, operation, schemas, has_policy) for operation in document.operations]
    failures = {int(status) for one in document.operations for status in one.responses if status.isdigit()}
    failures = {status: error_class(title, status) for status in sorted(failures) if status >= 300}
    errors = [*([FALLBACK] if has_policy else []), ERRORS.format(name=name, title=title)]
    errors += [f'class {error}({title}Error):\n    """Status {status}."""\n' for status, error in failures.items()]
    table = "".join(f"    {status}: {error},\n" for status, error in failures.items())
    errors.append(f"_ERRORS: dict[int, type[{title}Error]] = {{\n{table}}}\n")
    imports = IMPORTS + POLICY if has_policy else IMPORTS
    code = "\n\n".join([imports, models(name, document.version, schemas), *errors, *functions, HELPERS])
    _refuse_clashes(code, schemas)
    return code


def digest(text: str) -> str:
    """Return a digest that line breaks and indentation do not change."""
    return hashlib.sha256(re.sub(r"[\s,()]", "", text).encode(errors="replace")).hexdigest()[:16]


def is_untouched(text: str) -> bool:
    """Return whether a file has the code that fleet wrote into it."""
    digests, _, body = text.partition(MARK)[2].partition("\n")
    return digests[17:] == digest(body)


def _refuse_clashes(code: str, schemas: Node) -> None:
    """Refuse code in which two things have one name. Raises Inexpressible."""
    try:
        compile(code, "neighbour.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise Inexpressible(f"its code would not be Python: {error.msg}") from None
    parsed = ast.parse(code).body
    defined = [one.name for one in parsed if isinstance(one, ast.ClassDef | ast.AsyncFunctionDef)]
    imported = [alias.asname or alias.name for one in parsed if isinstance(one, ast.ImportFrom) for alias in one.names]
    if clashing := sorted(name for name, times in Counter([*defined, *set(imported)]).items() if times > 1):
        raise Inexpressible(f"the module would have two meanings of {clashing[0]}")
    functions = [one for one in parsed if isinstance(one, ast.AsyncFunctionDef)]
    used = {node.id for one in functions for node in ast.walk(one) if isinstance(node, ast.Name)} & schemas.keys()
    # The generator calls a schema StatusModel if a field `status` without a named schema is the class Status already.
    renamed = [name for name in used if f"{name}Model" in {*defined} - schemas.keys()]
    if others := sorted((schemas.keys() - {*defined}) | {*renamed}):
        raise Inexpressible(f"the generator of models gives {others[0]} another name")
