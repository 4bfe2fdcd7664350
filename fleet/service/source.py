"""Read the Python files of a service as syntax trees. No file is imported or run."""

import ast
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any, TypeVar, cast

from fleet.service.service import Service

Node = TypeVar("Node", bound=ast.AST)

# Types of values in a tree that `nodes` leaves out: constants, and the contexts of names.
_LEAVES = {*map(type, (None, True, 1, 1.0, 1j, "", b"", ...)), ast.Load, ast.Store, ast.Del}


@dataclass(frozen=True)
class Module:
    """A Python file."""

    path: str
    tree: ast.Module

    @cached_property
    def nodes(self) -> dict[type[ast.AST], list[ast.AST]]:
        """All nodes of the tree by their type, in the order of ast.walk, except the contexts of names (Load, Store)."""
        found: list[Any] = [self.tree]
        kinds: dict[type[ast.AST], list[ast.AST]] = {}
        for node in found:
            kind = type(node)
            if kind in _LEAVES:  # a value in a list, such as a name after `global`
                continue
            if kind in kinds:
                kinds[kind].append(node)
            else:
                kinds[kind] = [node]
            for value in vars(node).values():
                if type(value) is list:
                    found += value
                elif type(value) not in _LEAVES:
                    found.append(value)
        return kinds

    def of(self, kind: type[Node]) -> list[Node]:
        """Return all nodes of a type."""
        return cast(list[Node], self.nodes.get(kind, []))

    @cached_property
    def names(self) -> dict[str, str]:
        """The full names of imported names: {"AsyncClient": "httpx2.AsyncClient", "sa": "sqlalchemy"}."""
        found = {}
        for node in self._import_nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            elif node.module and not node.level:
                found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return found

    @cached_property
    def imports(self) -> list[tuple[str, int]]:
        """The full name and the line of every import."""
        found: list[tuple[str, int]] = []
        for node in self._import_nodes:
            if isinstance(node, ast.Import):
                found += [(alias.name, node.lineno) for alias in node.names]
            elif node.module and not node.level:
                # `from urllib import request` imports a module as well.
                found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
        return found

    @cached_property
    def _import_nodes(self) -> list[ast.Import | ast.ImportFrom]:
        return sorted([*self.of(ast.Import), *self.of(ast.ImportFrom)], key=lambda node: node.lineno)

    @cached_property
    def calls(self) -> list[tuple[str, ast.Call]]:
        """Every call with the full name of its function, as far as the imports show: `httpx2.AsyncClient`, `.get`."""
        return [(self.named(node.func), node) for node in self.of(ast.Call)]

    def named(self, node: ast.expr) -> str:
        """Return the full name of an expression; empty for other expressions than names and attributes."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.named(node.value)}.{node.attr}"
        return ""

    @cached_property
    def strings(self) -> list[tuple[str, int]]:
        """Every text except docstrings, with its line. An f-string counts as its parts."""
        docstrings = {id(node.value) for node in self.of(ast.Expr)}
        texts = (node for node in self.of(ast.Constant) if id(node) not in docstrings)
        return [(node.value, node.lineno) for node in texts if isinstance(node.value, str)]


def modules(service: Service, pattern: str) -> list[Module]:
    """Parse the files below src and tests that match. Raises FleetError if a file cannot be parsed."""
    return [module for module in _all(service) if fnmatchcase(module.path, pattern)]


# The files of one service are kept: the checks of a service follow each other, and each check reads most of the files.
@lru_cache(maxsize=1)
def _all(service: Service) -> list[Module]:
    return [Module(path, service.python(path)) for path in service.files("src/*.py", "tests/*.py")]


def assigned(node: ast.stmt) -> list[str]:
    """Return the names that a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
