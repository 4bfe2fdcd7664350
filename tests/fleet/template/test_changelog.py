"""CHANGELOG.md is for people and for fleet: it has the form that fleet can parse."""

import re

from fleet.template.changelog import SECTIONS, Note, parse
from tests.support.paths import ROOT

TEXT = """# Changelog

## [Unreleased]

### Behaviour

- Not yet.

## [1.1.0] - 2027-01-01

One paragraph for people.

### Added

- **Something.** For people only.

### Settings

- `A` is new;
  1 if it is not set.
- `B` is gone.

### Migrations

None.

## [1.0.0] - 2026-12-01

### Migrations

- None.
"""


def test_items_of_the_three_headings_are_read_over_their_lines_and_nothing_else() -> None:
    assert parse(TEXT) == [
        Note("Unreleased", "Behaviour", "Not yet."),
        Note("1.1.0", "Settings", "`A` is new; 1 if it is not set."),
        Note("1.1.0", "Settings", "`B` is gone."),
    ]


def test_every_release_of_our_own_says_something_under_each_heading_or_none() -> None:
    releases = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert releases
    for release in releases:
        for section in SECTIONS:
            found = re.search(rf"^### {section}\n\n(- |None\.)", release, re.MULTILINE)
            assert found, f"{release.splitlines()[0]} has no items under {section}, and does not say None."
