"""Match the paths of a service with the patterns of a template as Copier does, in a fraction of the time."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from copier._main import Worker
from pathspec import PathSpec

# A path without wildcards from the root, such as the path of one aggregate's file.
_PLAIN = re.compile(r"!?/[\w-][\w.-]*(?:/[\w-][\w.-]*)*", re.ASCII)


@lru_cache(maxsize=64)
def matcher(patterns: tuple[str, ...]) -> Callable[[Path], bool]:
    """Match as Copier does: the last pattern counts that matches a path. Services mostly differ in plain paths, which are
    looked up; all other patterns are tried once for all services.
    """
    plain: dict[str, tuple[int, int, bool]] = {}  # number of the pattern, number of other patterns before, is included
    others: list[str] = []
    for number, pattern in enumerate(patterns):
        if _PLAIN.fullmatch(pattern):
            plain[pattern.lstrip("!/")] = number, len(others), pattern[0] != "!"
        elif pattern:
            others.append(pattern)
    last_match = _last_match(tuple(others))

    def is_matched(path: Path) -> bool:
        is_included, index = last_match(path.as_posix())
        found = max((plain[one] for one in _with_parents(path.as_posix()) if one in plain), default=None)
        return found[2] if found and index < found[1] else is_included

    return is_matched


@lru_cache(maxsize=64)
def _last_match(patterns: tuple[str, ...]) -> Callable[[str], tuple[bool, int]]:
    matches: Any = Worker._path_matcher(cast(Worker, None), patterns)
    specification: PathSpec = matches.__self__

    @lru_cache(maxsize=4096)
    def last_match(path: str) -> tuple[bool, int]:
        found = specification.check_file(path)
        return bool(found.include), -1 if found.index is None else found.index

    return last_match


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
