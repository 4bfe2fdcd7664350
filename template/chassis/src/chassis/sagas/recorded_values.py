"""The recorded values of a saga: results of steps, answers and errors, as JSON in the row of the saga."""

import json
from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib import import_module
from operator import attrgetter
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

MAX_BYTES = 16_384
"""The largest result, answer or set of parameters, as JSON."""

Entry = dict[str, Any]
"""A recorded step has `name`, `at` and `result`. An answer or an error adds its class, and a compensation adds `undone`."""
UseCase = Callable[..., Awaitable[Any]]


class Diverged(Exception):
    """The function of the saga asks for another step than the step that was recorded at this place."""


class TooLarge(Exception):
    """The saga has more than MAX_STEPS steps, or a value of more than MAX_BYTES."""


def as_json(adapter: TypeAdapter[Any], value: Any, what: str) -> Any:
    """Return the value as JSON. Raises TooLarge, or ValueError for a value that its JSON does not bring back."""
    text = adapter.dump_json(value)
    if len(text) > MAX_BYTES:
        raise TooLarge(
            f"{what} has {len(text)} bytes as JSON, and a saga records at most {MAX_BYTES}: record an id, and read the rest by it"
        )
    try:
        back = adapter.validate_json(text)
        same = back == value or adapter.dump_python(back) == adapter.dump_python(value)
    except ValidationError:
        same = False
    if not same:
        raise ValueError(
            f"{what} is a {type(value).__name__}, which JSON does not bring back: annotate the type, leave out secrets and NaN, or "
            "record an id"
        )
    return json.loads(text)


@lru_cache(maxsize=512)
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@lru_cache(maxsize=512)
def result_adapter(use_case: UseCase) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(use_case, include_extras=True).get("return", Any))


def load(adapter: TypeAdapter[Any], value: Any) -> Any:
    return adapter.validate_json(json.dumps(value))


def error_of(entry: Entry) -> Exception:
    module, _, name = entry["error"].partition(":")
    try:
        kind = attrgetter(name)(import_module(module))
    except (ImportError, AttributeError):
        raise Diverged(
            f"the step {entry['name']!r} has recorded the error {entry['error']}, which the code here does not have: keep the class"
        ) from None
    # Skip __init__, which may have other parameters: only the text of the error was recorded.
    return kind.__new__(kind, entry["result"])
