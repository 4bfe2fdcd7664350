"""Read what migrations would do, as SQL, without letting the code of a service do anything. A program of its own.

python -I offline.py OUTPUT MIGRATION… writes JSON into OUTPUT: for each migration its statements, each with the line
that makes it, and why reading stopped, if it did. A migration is compiled by RestrictedPython: it reaches nothing but
Alembic's operations, what SQLAlchemy builds SQL of, and plain values. All else is refused, and not passed over: what
would run in production must not differ from what is judged here.
"""

import ast
import builtins
import datetime
import decimal
import io
import json
import operator
import re
import resource
import sys
import traceback
import uuid
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import BuiltinMethodType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import BatchOperations, Operations
from RestrictedPython import RestrictingNodeTransformer, compile_restricted_exec
from RestrictedPython.Guards import guarded_iter_unpack_sequence, guarded_unpack_sequence
from sqlalchemy.sql.base import ColumnCollection
from sqlalchemy.sql.functions import _FunctionGenerator
from sqlalchemy.sql.visitors import Visitable

# Which value it is makes no difference to those who wait, and not every type can be written as text.
_PARAMETER = re.compile(r"%\(\w+\)s")

LIMITS = {
    resource.RLIMIT_CPU: 20,
    resource.RLIMIT_FSIZE: 2**28,
}
if sys.platform == "linux":  # macOS enforces no limit of memory
    LIMITS[resource.RLIMIT_AS] = 2**31

# Without those that reach a database or register code: `get_bind` would also tell a migration that it is being judged.
_OPERATIONS = {
    name
    for name in dir(Operations)
    if name.startswith(("add_", "alter_", "batch_", "bulk_", "create_", "drop_", "rename_"))
    or name in ("execute", "f", "inline_literal")
} - {"create_module_class_proxy"}
_OF_PACKAGES = {
    "alembic": {"op"},
    "alembic.op": {*_OPERATIONS, "get_context"},
    "datetime": {"UTC", "date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "uuid": {"UUID"},
    "typing": {"Any", "Optional", "Sequence", "Union"},
    "collections.abc": {"Sequence"},
    "__future__": {"annotations"},
}
# Of these, everything that builds SQL.
_OF_SQLALCHEMY = {
    f"sqlalchemy{name}"
    for name in ("", ".dialects", ".dialects.postgresql", ".schema", ".sql", ".sql.expression", ".types")
}
_BUILDERS = re.compile(
    r"sqlalchemy\.sql\.(_(elements|selectable|dml)_constructors|elements)|sqlalchemy\.dialects\.postgresql\.(array|dml|ext)"
)
_VALUES = (bool, bytes, dict, float, frozenset, int, list, set, str, tuple, type(None))
_VALUES += (datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, decimal.Decimal, uuid.UUID)
_SQL = (Visitable, ColumnCollection, _FunctionGenerator)
_BUILTINS = ("bool", "dict", "enumerate", "float", "frozenset", "int", "len", "list", "max", "min", "range", "reversed")
_BUILTINS += ("set", "sorted", "str", "sum", "tuple", "zip")


class _Refused(Exception):
    """The migration does more than make SQL."""


class _Policy(RestrictingNodeTransformer):
    """No classes, and no functions that SQLAlchemy would call back: it takes the code of those apart."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:  # noqa: N802
        if node.value is None:
            return None
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:  # noqa: N802
        function: Any = super().visit_FunctionDef(node)
        function.returns = None
        function.decorator_list.append(ast.copy_location(ast.Name("_function_", ast.Load()), node))
        return function

    def check_name(self, node: Any, name: str | None, allow_magic_methods: bool = False) -> None:
        """A team's own names may begin with an underscore. The guards' end with one, too."""
        private = name is not None and re.fullmatch(r"_[A-Za-z](\w*[A-Za-z0-9])?", name)
        super().check_name(node, None if private else name, allow_magic_methods)

    # A refusal that the migration catches would hide what production does.
    visit_Try = visit_ClassDef = visit_Lambda = visit_Yield = RestrictingNodeTransformer.not_allowed  # noqa: N815


class _Function:
    """A function of the migration, for the migration alone to call."""

    __slots__ = ("__weakref__", "_call")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._call = function

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._call(*args, **options)


class _Statements(io.StringIO):
    """Takes SQL from Alembic, and looks up the stack for the line of the migration that it is from."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.made: list[tuple[str, int]] = []
        self._path = path

    def write(self, text: str) -> int:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self._path:
            frame = frame.f_back
        self.made.append((_PARAMETER.sub("NULL", text).replace("%%", "%"), frame.f_lineno if frame else 0))
        return len(text)


def statements(path: str) -> dict[str, Any]:
    """Read the statements of one migration, and why reading stopped, if it did."""
    output = _Statements(path)
    options = {"as_sql": True, "output_buffer": output}
    error, line = "", 0
    try:
        compiled = compile_restricted_exec(Path(path).read_text(), path, policy=_Policy)
        if compiled.code is None:
            number, _, what = compiled.errors[0].removeprefix("Line ").partition(": ")
            error, line = f"SyntaxError: {what or number}", int(number) if number.isdecimal() else 0
        else:
            namespace = dict(_NAMESPACE)
            with Operations.context(MigrationContext.configure(dialect_name="postgresql", opts=options)):
                exec(compiled.code, namespace)  # noqa: S102 (what it reaches is in _NAMESPACE)
                namespace["upgrade"]()
    except BaseException as stopped:
        error = str(stopped) if isinstance(stopped, _Refused) else f"{type(stopped).__name__}: {stopped}"
        frames = [frame for frame in traceback.extract_tb(stopped.__traceback__) if frame.filename == path]
        line = frames[-1].lineno or 0 if frames else 0
    return {"statements": output.made, "error": error, "line": line}


def _attribute(thing: Any, name: str) -> Any:
    """What `thing.name` is in a migration. By the type, because an object may lie about its class."""
    kind = type(thing)
    if kind is ModuleType and name in _OF_PACKAGES.get(thing.__name__, ()):
        return getattr(thing, name)
    if not name.startswith("_") and _may_be_asked(thing, kind, name):
        value = getattr(thing, name)
        if _is_harmless(value):
            return value
    raise _Refused(f"it uses {_name(thing)}.{name}, which does more than build SQL")


def _may_be_asked(thing: Any, kind: type, name: str) -> bool:
    if kind is ModuleType:
        return thing.__name__ in _OF_SQLALCHEMY
    if issubclass(kind, type):
        return issubclass(thing, Visitable)
    if kind is MigrationContext:
        return name == "autocommit_block"
    if kind is BatchOperations:
        return name in _OPERATIONS
    return issubclass(kind, _SQL) or (issubclass(kind, _VALUES) and not name.startswith("format"))


def _is_harmless(value: Any) -> bool:
    kind = type(value)
    if kind is ModuleType:
        return value.__name__ in _OF_SQLALCHEMY
    if issubclass(kind, type):
        return issubclass(value, (Visitable, *_VALUES))
    if kind is FunctionType:
        return _BUILDERS.fullmatch(value.__module__ or "") is not None
    return kind in (MethodType, BuiltinMethodType) or issubclass(kind, (*_SQL, *_VALUES)) or kind.__module__ == "typing"


def _name(thing: Any) -> str:
    return str(thing.__name__ if isinstance(thing, ModuleType | type) else type(thing).__name__)


def _import(
    name: str, _globals: Any = None, _locals: Any = None, names: tuple[str, ...] = (), level: int = 0
) -> ModuleType:
    if level or name not in _OF_SQLALCHEMY | _OF_PACKAGES.keys():
        raise _Refused(
            f"it imports {'.' * level}{name}, and may import only alembic, sqlalchemy, and plain values such as datetime"
        )
    module = import_module(name)
    # The bytecode of `from … import …` asks the module itself.
    for one in names or ():
        _attribute(module, one)
    return module if names else import_module(name.partition(".")[0])


def _writable(thing: Any) -> Any:
    if type(thing) not in (dict, list):
        raise _Refused(f"it changes a {_name(thing)}")
    return thing


def _changed(symbol: str, thing: Any, other: Any) -> Any:
    change = {"+=": operator.add, "-=": operator.sub, "*=": operator.mul, "|=": operator.or_}
    if symbol not in change:
        raise _Refused(f"it uses {symbol}")
    return change[symbol](thing, other)


_NAMESPACE: Mapping[str, Any] = {
    "__builtins__": {
        "__import__": _import,
        **{name: getattr(builtins, name) for name in _BUILTINS},
    },
    "__name__": "migration",
    "_apply_": lambda call, *args, **options: call(*args, **options),
    "_function_": _Function,
    "_getattr_": _attribute,
    "_getitem_": operator.getitem,
    "_getiter_": iter,
    "_inplacevar_": _changed,
    "_iter_unpack_sequence_": guarded_iter_unpack_sequence,
    "_unpack_sequence_": guarded_unpack_sequence,
    "_write_": _writable,
}


if __name__ == "__main__":
    for limit, most in LIMITS.items():
        _, hardest = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hardest == resource.RLIM_INFINITY else min(most, hardest), hardest))
    Path(sys.argv[1]).write_text(json.dumps({path: statements(path) for path in sys.argv[2:]}))
