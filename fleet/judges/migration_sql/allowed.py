"""The names that a migration may use: names that build SQL, and plain values."""

import datetime
import decimal
import re
import uuid
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import BatchOperations, Operations
from sqlalchemy.sql.base import ColumnCollection
from sqlalchemy.sql.elements import conv, quoted_name
from sqlalchemy.sql.functions import _FunctionGenerator
from sqlalchemy.sql.lambdas import LambdaElement
from sqlalchemy.sql.type_api import TypeEngine
from sqlalchemy.sql.visitors import Visitable

# Alembic's operations that make SQL. Operations that reach a database or register code are left out: `get_bind`, for example,
# would also show a migration that it is being judged.
OPERATIONS = {
    name
    for name in dir(Operations)
    if name.startswith(("add_", "alter_", "batch_", "bulk_", "create_", "drop_", "rename_"))
    or name in ("execute", "f", "inline_literal")
} - {"create_module_class_proxy"}
# The modules that a migration may import, with their permitted names.
MODULES = {
    "alembic": {"op"},
    "alembic.op": {*OPERATIONS, "get_context"},
    "datetime": {"UTC", "date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "uuid": {"UUID"},
    "typing": {"Any", "Optional", "Sequence", "Union"},
    "collections.abc": {"Sequence"},
    "__future__": {"annotations"},
}
# The modules of SQLAlchemy from which a migration may use everything that builds SQL.
SQL_MODULES = {
    f"sqlalchemy{name}"
    for name in ("", ".dialects", ".dialects.postgresql", ".schema", ".sql", ".sql.expression", ".types")
}
BUILDER_MODULES = re.compile(
    r"sqlalchemy\.sql\.(_(elements|selectable|dml)_constructors|elements)|sqlalchemy\.dialects\.postgresql\.(array|dml|ext)"
)
# The methods that build SQL. Other methods of the same objects compile, reflect, or load drivers and pickles.
_EXPRESSION_METHODS = """
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
METHODS = {
    TypeEngine: {"as_generic", "enums", "name", "with_variant"},
    ColumnCollection: {"get", "items", "keys", "values"},
    Visitable: set(_EXPRESSION_METHODS.split()),
}
# Options that only a connection reads.
CONNECTION_OPTIONS = {"execution_options", "listeners"}
VALUES = (bool, bytes, dict, float, frozenset, int, list, set, str, tuple, type(None), conv, quoted_name)
VALUES += (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone)
VALUES += (decimal.Decimal, uuid.UUID)
# Methods that read attributes, or show the day and the zone of this machine.
UNSAFE_METHODS = {"format", "format_map"}
UNSAFE_METHODS |= {"astimezone", "fromtimestamp", "now", "timestamp", "today", "utcfromtimestamp", "utcnow"}
CONTAINERS = (dict, frozenset, list, range, set, tuple, type({}.keys()), type({}.values()), type({}.items()))
SQL = (Visitable, ColumnCollection, _FunctionGenerator)
BUILTINS = ("bool", "dict", "enumerate", "float", "frozenset", "int", "len", "list", "max", "min", "range", "reversed")
BUILTINS += ("set", "sorted", "str", "sum", "tuple", "zip")


def is_attribute(thing: Any, kind: type, name: str) -> bool:
    """Return whether a migration may read the attribute of an object of this type."""
    if kind is MigrationContext:
        return name == "autocommit_block"
    if kind is BatchOperations:
        return name in OPERATIONS
    if kind in VALUES:
        return name not in UNSAFE_METHODS
    if kind is _FunctionGenerator or issubclass(kind, ColumnCollection):
        # Any name is the name of a function or a column, unless it is an attribute of the Python object.
        is_attribute_of_python = hasattr(kind, name) or name in getattr(thing, "__dict__", ())
        return not is_attribute_of_python or name in METHODS.get(ColumnCollection, ())
    return any(issubclass(kind, one) and name in names for one, names in METHODS.items()) and not (
        issubclass(kind, TypeEngine) and name not in METHODS[TypeEngine]
    )


def is_harmless(value: Any) -> bool:
    """Return whether a migration may hold the value: a plain value, or a class, function or object that builds SQL."""
    kind = type(value)
    if issubclass(kind, type):
        return value in VALUES or (issubclass(value, Visitable) and not issubclass(value, LambdaElement))
    if kind is FunctionType:
        return BUILDER_MODULES.fullmatch(value.__module__ or "") is not None
    return kind in (MethodType, BuiltinMethodType, *VALUES) or issubclass(kind, SQL) or kind.__module__ == "typing"
