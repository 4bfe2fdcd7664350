"""A trace of any shape has an order, and a text."""

from dataclasses import dataclass

import pytest
from chassis.dev.viewer.tree import draw, in_tree_order


@dataclass(frozen=True)
class Node:
    span_id: str
    parent_id: str
    start_ns: int


def order(*nodes: tuple[str, str, int]) -> list[tuple[str, int]]:
    return [(node.span_id, depth) for node, depth in in_tree_order(Node(*each) for each in nodes)]


def test_spans_follow_their_parents_in_order_of_time() -> None:
    sent = [("b", "root", 3), ("c", "a", 4), ("", "a", 2), ("root", "", 0), ("a", "root", 1), ("d", "elsewhere", 5)]
    assert order(*sent) == [("root", 0), ("a", 1), ("", 2), ("c", 2), ("b", 1), ("d", 0)]


def test_spans_that_are_each_others_parents_are_shown_once() -> None:
    assert order(("a", "b", 1), ("b", "a", 2), ("self", "self", 3)) == [("a", 0), ("b", 1), ("self", 0)]


def test_a_span_that_came_twice_is_shown_with_its_children_once() -> None:
    assert sorted(order(("a", "", 1), ("a", "", 1), ("b", "a", 2))) == [("a", 0), ("a", 0), ("b", 1)]


@pytest.mark.slow
def test_a_chain_may_be_deeper_than_the_stack_of_python() -> None:
    found = order(*((str(number), str(number - 1), number) for number in range(20_000)))
    assert found[-1] == ("19999", 19_999)


def test_the_text_has_columns_and_no_character_that_a_terminal_obeys() -> None:
    rows = [(0, "GET /x", "billing", "12.0 ms", ""), (100, "a\nb\x1b[31m", "billing", "1.0 ms", "SELECT\n1")]
    first, second = draw(rows).split("\n")
    assert first == f"GET /x{' ' * 82}  billing  12.0 ms"
    assert second == f"{' ' * 80}a b [31m  billing   1.0 ms  SELECT 1"
    assert draw([]) == ""
