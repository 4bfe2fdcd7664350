"""The functions that every attribute, call and import of a migration goes through."""

import builtins
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

from RestrictedPython.Guards import guarded_iter_unpack_sequence, guarded_unpack_sequence
from sqlalchemy.sql.visitors import Visitable

from fleet.judges.migration_sql import allowed
from fleet.judges.migration_sql.wall import Refused


class _Unprintable:
    """An object whose text would show the migration that it is being judged, and the machine's paths."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise Refused("it writes a function or a module as text")


class Function(_Unprintable):
    """A function of the migration, which only the migration can call."""

    __slots__ = ("_call",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._call = function

    def __call__(self, /, *args: Any, **options: Any) -> Any:
        return self._call(*args, **options)


class _Module(_Unprintable):
    """A module as a migration sees it, because `from … import …` reads attributes of the module itself."""

    __slots__ = ("_module",)

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return _module_attribute(self._module, name)


def _attribute(thing: Any, name: str) -> Any:
    """Read `thing.name` in a migration. `type` decides, because an object may lie about its class."""
    if type(thing) is _Module:
        return getattr(thing, name)
    if not name.startswith("_") and allowed.is_attribute(thing, type(thing), name):
        value = getattr(thing, name)
        if allowed.is_harmless(value):
            return value
    raise _not_sql(thing, name)


@cache
def _wrap_module(module: ModuleType) -> _Module:
    return _Module(module)


def _module_attribute(module: ModuleType, name: str) -> Any:
    if name in allowed.MODULES.get(module.__name__, ()):
        value = getattr(module, name)
        return _wrap_module(value) if type(value) is ModuleType else value
    value = getattr(module, name, ...)  # the default is not None, which a name may have as its value
    if type(value) is ModuleType and value.__name__ in allowed.SQL_MODULES:
        return _wrap_module(value)
    if module.__name__ in allowed.SQL_MODULES and not name.startswith("_") and allowed.is_harmless(value):
        return value
    raise _not_sql(module, name)


def _not_sql(thing: Any, name: str) -> Refused:
    return Refused(f"it uses {_name(thing)}.{name}, which does more than build SQL")


def _call(call: Any, /, *args: Any, **options: Any) -> Any:
    """Call a function in a migration.

    A function that builds SQL gets no function as an argument, because SQLAlchemy would call some functions only in production,
    or with a connection.
    """
    kind = type(call)
    if (
        kind is Function
        or any(call is one for one in _BUILTINS)
        or (kind is BuiltinMethodType and type(call.__self__) in allowed.VALUES)
    ):
        return call(*args, **options)
    if not (kind in (FunctionType, MethodType) or issubclass(kind, (type, *allowed.SQL))):
        raise Refused(f"it calls a {_name(call)}")
    for name in options:
        if name in allowed.CONNECTION_OPTIONS or name.startswith("_"):
            raise Refused(f"it gives {name}, which does more than build SQL")
    _check_given((args, options))
    return call(*args, **options)


def _check_given(value: Any, depth: int = 0) -> None:
    kind = type(value)
    if depth > 20:
        raise Refused("it gives lists in lists without end to what builds SQL")
    if kind in allowed.CONTAINERS:
        parts: Iterable[Any] = (*value.keys(), *value.values()) if kind is dict else value
        for part in parts if kind is not range else ():
            _check_given(part, depth + 1)
    elif not (
        kind in allowed.VALUES
        or issubclass(kind, allowed.SQL)
        or (issubclass(kind, type) and issubclass(value, Visitable))
    ):
        raise Refused(f"it gives a {_name(value)} to what builds SQL: give only SQL and plain values, such as lists")


def _name(thing: Any) -> str:
    return str(thing.__name__ if isinstance(thing, ModuleType | type) else type(thing).__name__).lstrip("_")


def _import(
    name: str, _globals: Any = None, _locals: Any = None, names: tuple[str, ...] = (), level: int = 0
) -> _Module:
    if level or name not in allowed.SQL_MODULES | allowed.MODULES.keys():
        raise Refused(
            f"it imports {'.' * level}{name}, and may import only alembic, sqlalchemy, and plain values such as datetime"
        )
    return _wrap_module(sys.modules[name if names else name.partition(".")[0]])


def _check_writable(thing: Any) -> Any:
    if type(thing) not in (dict, list):
        raise Refused(f"it changes a {_name(thing)}")
    return thing


def _change(symbol: str, thing: Any, other: Any) -> Any:
    change = {"+=": operator.iadd, "-=": operator.isub, "*=": operator.imul, "|=": operator.ior}
    if symbol not in change:
        raise Refused(f"it uses {symbol}")
    return change[symbol](thing, other)


_BUILTINS = [getattr(builtins, name) for name in allowed.BUILTINS]
NAMESPACE: Mapping[str, Any] = {
    "__builtins__": {
        "__import__": _import,
        **dict(zip(allowed.BUILTINS, _BUILTINS, strict=True)),
    },
    "__name__": "migration",
    "_apply_": _call,
    "_function_": Function,
    "_getattr_": _attribute,
    "_getitem_": operator.getitem,
    "_getiter_": iter,
    "_inplacevar_": _change,
    "_iter_unpack_sequence_": guarded_iter_unpack_sequence,
    "_unpack_sequence_": guarded_unpack_sequence,
    "_write_": _check_writable,
}
