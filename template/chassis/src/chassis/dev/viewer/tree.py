"""A trace as a tree, in the order in which people read it."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol, TypeVar

DEEPEST_INDENT = 40
"""The levels that have an indent of their own in text: the indents of a chain of 10,000 spans would take 100 MB."""


MOST_CHARACTERS = 2000
"""The characters of a name or statement that a line of text has."""


class Node(Protocol):
    """A span, or a log line, which has no id of its own."""

    @property
    def span_id(self) -> str: ...
    @property
    def parent_id(self) -> str: ...
    @property
    def start_ns(self) -> int: ...


N = TypeVar("N", bound=Node)


def in_tree_order(nodes: Iterable[N]) -> list[tuple[N, int]]:
    """Return each node after its parent, with its depth; siblings in order of time.

    A node whose parent is not here is a root. If spans are each other's parents, the first span is a root.
    """
    nodes = sorted(nodes, key=lambda node: node.start_ns)
    known = {node.span_id for node in nodes if node.span_id}
    children: dict[str, list[N]] = defaultdict(list)
    roots: list[N] = []
    for node in nodes:
        (children[node.parent_id] if node.parent_id in known else roots).append(node)
    ordered: list[tuple[N, int]] = []
    seen: set[int] = set()
    for root in (*roots, *nodes):
        waiting = [(root, 0)]
        while waiting:  # not by recursion, because a trace may be deeper than Python's stack
            node, depth = waiting.pop()
            if id(node) not in seen:
                seen.add(id(node))
                ordered.append((node, depth))
                below = children[node.span_id] if node.span_id else []
                waiting += [(child, depth + 1) for child in reversed(below)]
    return ordered


def draw(rows: Iterable[tuple[int, str, str, str, str]]) -> str:
    """Draw rows of depth, name, service, duration and the rest of the line as an indented tree."""
    lines = [
        ("  " * min(depth, DEEPEST_INDENT) + _one_line(name), *map(_one_line, others)) for depth, name, *others in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {service:<{widths[1]}}  {duration:>{widths[2]}}  {rest}".rstrip()
        for name, service, duration, rest in lines
    )


def _one_line(text: str) -> str:
    """Replace line breaks, and all other characters that a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in text[:MOST_CHARACTERS])
