"""The page of a service that has as many findings as a service can have."""

import time

from fleet.check.checks import MOST_PROBLEMS
from fleet.check.findings import Finding, Level
from fleet.check.standing import Standing
from fleet.page import Content, page

KINDS = 6
# On an idle core the page takes half a second. It takes 11 seconds if each finding looks through all findings before it.
MOST_SECONDS = 6


def test_each_finding_takes_the_same_time_and_the_first_of_a_rule_has_the_anchor() -> None:
    numbers = [(kind, place) for kind in range(KINDS) for place in range(MOST_PROBLEMS)]
    found = tuple(
        Finding(f"rule-{kind}", f"file-{place}.py", "is wrong", "mend it", why="so") for kind, place in numbers
    )
    of_the_map = tuple(Finding("map-call-unfit", f"specs/{place}.json", "differs", "do") for _, place in numbers)
    standing = Standing("many", "", version="v1.0.0", conventions=found, neighbours=of_the_map)
    began = time.process_time()
    shown = page(Content([standing], []))
    assert time.process_time() - began < MOST_SECONDS
    assert [shown.count(f'id="s1-rule-{kind}"') for kind in range(KINDS)] == [1] * KINDS
    assert shown.count(f'data-tone="{Level.ERROR}" data-id="rule-0"') == MOST_PROBLEMS
