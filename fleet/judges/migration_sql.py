"""Read what migrations would do, as SQL, without letting the code of a service do anything. A program of its own.

python -I migration_sql.py OUTPUT MIGRATION… writes JSON into OUTPUT: for each migration its statements, each with the line
that makes it, and why reading stopped, if it did. A migration is compiled by RestrictedPython: it reaches nothing but
Alembic's operations, what SQLAlchemy builds SQL of, and plain values. All else is refused, and not passed over: what
would run in production must not differ from what is judged here. While a migration runs, Python itself refuses whatever
reaches the system (`_wall`), should there be a hole in the guards.
"""

import ast
import builtins
import codecs
import datetime
import decimal
import io
import json
import operator
import os
import re
import resource
import sys
import time
import tokenize
import traceback
import uuid
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import BuiltinMethodType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import BatchOperations, Operations
from RestrictedPython import RestrictingNodeTransformer, compile_restricted_exec
from RestrictedPython.Guards import guarded_iter_unpack_sequence, guarded_unpack_sequence
from sqlalchemy.sql.base import ColumnCollection
from sqlalchemy.sql.elements import conv, quoted_name
from sqlalchemy.sql.functions import _FunctionGenerator
from sqlalchemy.sql.lambdas import LambdaElement
from sqlalchemy.sql.type_api import TypeEngine
from sqlalchemy.sql.visitors import Visitable
from sqlalchemy.util import langhelpers

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
# The methods by which SQL is written; others of the same objects compile, reflect, or load drivers and pickles.
_OF_EXPRESSIONS = """
    add_columns adjacent_to alias all all_ any any_ asc astext between bindparams bitwise_and bitwise_lshift
    bitwise_not bitwise_or bitwise_rshift bitwise_xor bool_op c cast collate column_valued columns concat
    contained_by contains correlate correlate_except cte data delete delete_path desc distinct endswith except_
    except_all excluded exists fetch filter from_select group_by has_all has_any has_key having icontains iendswith
    ilike in_ insert intersect intersect_all is_ is_distinct_from is_not is_not_distinct_from isnot
    isnot_distinct_from istartswith join join_from key label lateral like limit match name next_value
    not_extend_left_of not_extend_right_of not_ilike not_in not_like notilike notin_ notlike nulls_first nulls_last
    nullsfirst nullslast offset on_conflict_do_nothing on_conflict_do_update op order_by outerjoin outerjoin_from
    over overlap overlaps path_exists path_match prefix_with regexp_match regexp_replace returning scalar_subquery
    schema select select_from startswith strictly_left_of strictly_right_of subquery suffix_with table table_valued
    tablesample type union union_all update values where with_for_update with_only_columns within_group
"""
_METHODS = {
    TypeEngine: {"as_generic", "enums", "name", "with_variant"},
    ColumnCollection: {"get", "items", "keys", "values"},
    Visitable: set(_OF_EXPRESSIONS.split()),
}
# What only a connection looks at.
_KEYWORDS = {"execution_options", "listeners"}
_VALUES = (bool, bytes, dict, float, frozenset, int, list, set, str, tuple, type(None), conv, quoted_name)
_VALUES += (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone)
_VALUES += (decimal.Decimal, uuid.UUID)
# These read attributes, or tell the day and the zone of this machine.
_NOT_OF_VALUES = {"format", "format_map"}
_NOT_OF_VALUES |= {"astimezone", "fromtimestamp", "now", "timestamp", "today", "utcfromtimestamp", "utcnow"}
_CONTAINERS = (dict, frozenset, list, range, set, tuple, type({}.keys()), type({}.values()), type({}.items()))
_SQL = (Visitable, ColumnCollection, _FunctionGenerator)
_BUILTINS = ("bool", "dict", "enumerate", "float", "frozenset", "int", "len", "list", "max", "min", "range", "reversed")
_BUILTINS += ("set", "sorted", "str", "sum", "tuple", "zip")


class _Refused(Exception):
    """The migration does more than make SQL. Counted, because SQLAlchemy might catch the exception."""

    all: list[str] = []  # noqa: RUF012

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.all.append(reason)


class _Wall:
    """Refuses what reaches the system, however a migration may have come by it. Python lets nobody take a hook away."""

    # What Python tells while SQL is made: who calls, and what a function is called.
    HARMLESS = {"builtins.id", "object.__getattr__", "sys._getframe"}  # noqa: RUF012

    def __init__(self) -> None:
        self._is_up = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if self._is_up and event not in self.HARMLESS and not self._is_of_sqlalchemy(event):
            raise _Refused(f"it does {event}, which does more than build SQL")

    def _is_of_sqlalchemy(self, event: str) -> bool:
        """Whether it is a loop over the parts of an expression, which SQLAlchemy writes for each class once it is needed."""
        return event in ("compile", "exec") and sys._getframe(2).f_code.co_filename == langhelpers.__file__

    @contextmanager
    def up(self) -> Generator[None]:
        self._is_up = True
        try:
            yield
        finally:
            self._is_up = False


class _Policy(RestrictingNodeTransformer):
    """No classes, and no functions that SQLAlchemy would call back: it takes the code of those apart."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:  # noqa: N802
        self._check_annotation(node.annotation)
        if node.value is not None:
            return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))
        if not isinstance(node.target, ast.Name):
            self.error(node, "An annotation without a value must be that of a name.")
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:  # noqa: N802
        parameters = node.args
        every = (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs, parameters.vararg, parameters.kwarg)
        for one in filter(None, every):
            self._check_annotation(one.annotation)
            one.annotation = None
        self._check_annotation(node.returns)
        node.returns = None
        if node.decorator_list or getattr(node, "type_params", None):
            self.error(node, "Decorators and type parameters are not allowed.")
        function: Any = super().visit_FunctionDef(node)
        function.decorator_list.append(ast.copy_location(ast.Name("_function_", ast.Load()), node))
        return function

    def _check_annotation(self, annotation: ast.expr | None) -> None:
        """Annotations are left out here, and Python computes those of a module and of functions."""
        plain = (
            ast.Name,
            ast.Attribute,
            ast.Constant,
            ast.Subscript,
            ast.Tuple,
            ast.List,
            ast.BinOp,
            ast.BitOr,
            ast.Load,
        )
        if annotation is not None and not all(isinstance(part, plain) for part in ast.walk(annotation)):
            self.error(annotation, "An annotation must be made of names and constants.")

    def visit_Call(self, node: ast.Call) -> Any:  # noqa: N802
        call: Any = super().visit_Call(node)
        if not (isinstance(call.func, ast.Name) and call.func.id == "_apply_"):
            call.args.insert(0, call.func)
            call.func = ast.copy_location(ast.Name("_apply_", ast.Load()), call.args[0])
        return call

    def check_name(self, node: Any, name: str | None, allow_magic_methods: bool = False) -> None:
        """A team's own names may begin with an underscore. The guards' end with one, too."""
        private = name is not None and re.fullmatch(r"_[A-Za-z](\w*[A-Za-z0-9])?", name)
        super().check_name(node, None if private else name, allow_magic_methods)

    # A refusal that the migration catches would hide what production does.
    visit_Try = visit_ClassDef = visit_Lambda = visit_Yield = RestrictingNodeTransformer.not_allowed  # noqa: N815


class _Unwritable:
    """Written as text it would tell the migration that it is being judged, and where."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise _Refused("it writes a function or a module as text")


class _Function(_Unwritable):
    """A function of the migration, for the migration alone to call."""

    __slots__ = ("_call",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._call = function

    def __call__(self, /, *args: Any, **options: Any) -> Any:
        return self._call(*args, **options)


class _Module(_Unwritable):
    """A module as a migration sees it: `from … import …` asks the module itself for attributes."""

    __slots__ = ("_module",)

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return _of_module(self._module, name)


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


def statements(path: str, wall: _Wall) -> dict[str, Any]:
    """Read the statements of one migration, and why reading stopped, if it did."""
    output = _Statements(path)
    options = {"as_sql": True, "output_buffer": output}
    error, line = "", 0
    _Refused.all.clear()
    try:
        compiled = compile_restricted_exec(_source(path), path, policy=_Policy)
        if compiled.code is None:
            number, _, what = compiled.errors[0].removeprefix("Line ").partition(": ")
            error, line = f"SyntaxError: {what or number}", int(number) if number.isdecimal() else 0
        else:
            namespace = dict(_NAMESPACE)
            module = FunctionType(compiled.code, namespace)  # what it reaches is in _NAMESPACE
            context = MigrationContext.configure(dialect_name="postgresql", opts=options)
            with Operations.context(context), wall.up():
                module()
                namespace["upgrade"]()
    except BaseException as stopped:
        lines = [
            number for frame, number in traceback.walk_tb(stopped.__traceback__) if frame.f_code.co_filename == path
        ]
        error, line = _reason(stopped, wall), (lines or [0])[-1] or 0
    return {"statements": output.made, "error": next(iter(_Refused.all), error), "line": line}


def _source(path: str) -> str:
    """Raises SyntaxError if Python would read other characters than whoever looks at the file."""
    content = re.sub(rb"\r\n?", b"\n", Path(path).read_bytes())
    coding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    if not codecs.lookup(coding).name.startswith("utf-8"):
        raise SyntaxError(f"it declares the coding {coding}, and may declare only UTF-8")
    return content.decode("utf-8-sig")


def _reason(stopped: BaseException, wall: _Wall) -> str:
    """What an exception says, which may ask things of the migration."""
    kind = type(stopped).__name__
    try:
        with wall.up():
            return f"{kind}: {stopped}"
    except Exception:
        return kind


def _attribute(thing: Any, name: str) -> Any:
    """What `thing.name` is in a migration. By the type, because an object may lie about its class."""
    if type(thing) is _Module:
        return getattr(thing, name)
    if not name.startswith("_") and _may_be_asked(thing, type(thing), name):
        value = getattr(thing, name)
        if _is_harmless(value):
            return value
    raise _not_sql(thing, name)


@cache
def _module(module: ModuleType) -> _Module:
    return _Module(module)


def _of_module(module: ModuleType, name: str) -> Any:
    if name in _OF_PACKAGES.get(module.__name__, ()):
        value = getattr(module, name)
        return _module(value) if type(value) is ModuleType else value
    value = getattr(module, name, ...)  # not None, which is a value
    if type(value) is ModuleType and value.__name__ in _OF_SQLALCHEMY:
        return _module(value)
    if module.__name__ in _OF_SQLALCHEMY and not name.startswith("_") and _is_harmless(value):
        return value
    raise _not_sql(module, name)


def _not_sql(thing: Any, name: str) -> _Refused:
    return _Refused(f"it uses {_name(thing)}.{name}, which does more than build SQL")


def _may_be_asked(thing: Any, kind: type, name: str) -> bool:
    if kind is MigrationContext:
        return name == "autocommit_block"
    if kind is BatchOperations:
        return name in _OPERATIONS
    if kind in _VALUES:
        return name not in _NOT_OF_VALUES
    if kind is _FunctionGenerator or issubclass(kind, ColumnCollection):
        # Any name is that of a function or a column, unless it is one of Python's.
        its_own = hasattr(kind, name) or name in getattr(thing, "__dict__", ())
        return not its_own or name in _METHODS.get(ColumnCollection, ())
    return any(issubclass(kind, one) and name in names for one, names in _METHODS.items()) and not (
        issubclass(kind, TypeEngine) and name not in _METHODS[TypeEngine]
    )


def _is_harmless(value: Any) -> bool:
    kind = type(value)
    if issubclass(kind, type):
        return value in _VALUES or (issubclass(value, Visitable) and not issubclass(value, LambdaElement))
    if kind is FunctionType:
        return _BUILDERS.fullmatch(value.__module__ or "") is not None
    return kind in (MethodType, BuiltinMethodType, *_VALUES) or issubclass(kind, _SQL) or kind.__module__ == "typing"


def _called(call: Any, /, *args: Any, **options: Any) -> Any:
    """Call it. What SQLAlchemy gets holds no function: some it would call in production only, or with a connection."""
    kind = type(call)
    if (
        kind is _Function
        or any(call is one for one in _CALLED)
        or (kind is BuiltinMethodType and type(call.__self__) in _VALUES)
    ):
        return call(*args, **options)
    if not (kind in (FunctionType, MethodType) or issubclass(kind, (type, *_SQL))):
        raise _Refused(f"it calls a {_name(call)}")
    for name in options:
        if name in _KEYWORDS or name.startswith("_"):
            raise _Refused(f"it gives {name}, which does more than build SQL")
    _check_given((args, options))
    return call(*args, **options)


def _check_given(value: Any, depth: int = 0) -> None:
    kind = type(value)
    if depth > 20:
        raise _Refused("it gives lists in lists without end to what builds SQL")
    if kind in _CONTAINERS:
        parts: Iterable[Any] = (*value.keys(), *value.values()) if kind is dict else value
        for part in parts if kind is not range else ():
            _check_given(part, depth + 1)
    elif not (kind in _VALUES or issubclass(kind, _SQL) or (issubclass(kind, type) and issubclass(value, Visitable))):
        raise _Refused(f"it gives a {_name(value)} to what builds SQL: give only SQL and plain values, such as lists")


def _name(thing: Any) -> str:
    return str(thing.__name__ if isinstance(thing, ModuleType | type) else type(thing).__name__).lstrip("_")


def _import(
    name: str, _globals: Any = None, _locals: Any = None, names: tuple[str, ...] = (), level: int = 0
) -> _Module:
    if level or name not in _OF_SQLALCHEMY | _OF_PACKAGES.keys():
        raise _Refused(
            f"it imports {'.' * level}{name}, and may import only alembic, sqlalchemy, and plain values such as datetime"
        )
    return _module(sys.modules[name if names else name.partition(".")[0]])


def _writable(thing: Any) -> Any:
    if type(thing) not in (dict, list):
        raise _Refused(f"it changes a {_name(thing)}")
    return thing


def _changed(symbol: str, thing: Any, other: Any) -> Any:
    change = {"+=": operator.iadd, "-=": operator.isub, "*=": operator.imul, "|=": operator.ior}
    if symbol not in change:
        raise _Refused(f"it uses {symbol}")
    return change[symbol](thing, other)


_CALLED = [getattr(builtins, name) for name in _BUILTINS]
_NAMESPACE: Mapping[str, Any] = {
    "__builtins__": {
        "__import__": _import,
        **dict(zip(_BUILTINS, _CALLED, strict=True)),
    },
    "__name__": "migration",
    "_apply_": _called,
    "_function_": _Function,
    "_getattr_": _attribute,
    "_getitem_": operator.getitem,
    "_getiter_": iter,
    "_inplacevar_": _changed,
    "_iter_unpack_sequence_": guarded_iter_unpack_sequence,
    "_unpack_sequence_": guarded_unpack_sequence,
    "_write_": _writable,
}


def _import_all() -> None:
    """What SQLAlchemy and Alembic import once it is needed: the wall lets nobody import."""
    for name in _OF_SQLALCHEMY | _OF_PACKAGES.keys():
        import_module(name)
    for package in ("alembic.ddl", "alembic.operations", "sqlalchemy.sql"):
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            import_module(module.name)


def main(output: str, paths: list[str]) -> None:
    for limit, most in LIMITS.items():
        _, hardest = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hardest == resource.RLIM_INFINITY else min(most, hardest), hardest))
    # As in production, where a migration must not see that it is elsewhere.
    os.environ["TZ"] = "UTC"
    time.tzset()
    # To show a warning, Python opens the file that it is about.
    warnings.simplefilter("ignore")
    _import_all()
    wall = _Wall()
    Path(output).write_text(json.dumps({path: statements(path, wall) for path in paths}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
