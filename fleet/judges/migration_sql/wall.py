"""Refuse access to the system while a migration runs, even through a hole in the guards."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.util import langhelpers


class Refused(Exception):
    """The migration does more than build SQL. All refusals are kept, because SQLAlchemy might catch the exception."""

    all: list[str] = []  # noqa: RUF012

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.all.append(reason)


class Wall:
    """An audit hook of Python, which no code can remove."""

    # Events that building SQL causes: reading the caller, and the name of a function.
    HARMLESS = {"builtins.id", "object.__getattr__", "sys._getframe"}  # noqa: RUF012

    def __init__(self) -> None:
        self._is_up = False
        sys.addaudithook(self._audit)

    def _audit(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if self._is_up and event not in self.HARMLESS and not self._is_from_sqlalchemy(event):
            raise Refused(f"it does {event}, which does more than build SQL")

    def _is_from_sqlalchemy(self, event: str) -> bool:
        """Whether SQLAlchemy compiles a loop over the parts of an expression, which it does once for each class."""
        return event in ("compile", "exec") and sys._getframe(2).f_code.co_filename == langhelpers.__file__

    @contextmanager
    def up(self) -> Generator[None]:
        self._is_up = True
        try:
            yield
        finally:
            self._is_up = False
