"""Read from the template's CHANGELOG.md what a deployer must know about the releases between two versions.

fleet reads three headings of a release. Each item below them is one line of a list, or continues on indented lines:

    ## [1.3.0] - 2027-02-01

    ### Settings

    - `RELAY_BATCH_SIZE` is new; 100 if it is not set.

    ### Migrations

    - `chassis_0003` adds a column. The image of the release before runs on the new schema.

    ### Behaviour

    - A body of more than 1 MiB is answered with 413.
"""

import re
from dataclasses import dataclass

from fleet.template.release import Release, as_version

FILE = "CHANGELOG.md"
SECTIONS = ("Settings", "Migrations", "Behaviour")


@dataclass(frozen=True)
class Note:
    """One thing to know before deploying."""

    version: str
    section: str
    text: str


def notes(old: Release, new: Release) -> list[Note]:
    """Find the notes of the releases after `old` up to `new`. If `new` is later than any release, add the unreleased notes."""
    file = new.folder / FILE
    text = file.read_text() if file.is_file() else ""
    return [note for note in parse(text) if _between(note.version, old, new)]


def parse(changelog: str) -> list[Note]:
    """Find every note of a changelog, in its order."""
    found = []
    for release in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        title, _, body = release.partition("\n")
        version = re.sub(r"[\[\]]", "", title.split()[0])
        for section in re.split(r"^### ", body, flags=re.MULTILINE)[1:]:
            name, _, items = section.partition("\n")
            if name.strip() in SECTIONS:
                found += [Note(version, name.strip(), item) for item in _items(items)]
    return found


def _items(text: str) -> list[str]:
    found = [" ".join(item.split()) for item in re.findall(r"^[-*] (.*(?:\n[ \t]+\S.*)*)", text, re.MULTILINE)]
    return [item for item in found if item.rstrip(".").lower() != "none"]


def _between(version: str, old: Release, new: Release) -> bool:
    number = as_version(version)
    if number is None:
        # The heading is Unreleased: its notes are about the commits after the newest tag.
        return new.number is None or new.number.is_postrelease
    after = old.number is None or number > old.number
    return after and (new.number is None or number <= new.number)
