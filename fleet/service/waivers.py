"""Read conventions.yml, the waivers that the platform team granted: for a time, and for a path only while its bytes are the same.

waivers:
  - path: Dockerfile
    reason: needs libvips, until the platform's image has it
    owner: media-team
    approver: ana@platform
    expires: 2027-03-01
    content: 9d4c6f0f1c7b5a3f6c1d2e8a7b9c0d1e2f3a4b5c   # git hash-object Dockerfile
  - id: http-paths
    reason: the mobile app of 2024 calls these
    owner: media-team
    approver: ana@platform
    expires: 2027-06-30
  - id: supply-no-secrets   # in this file only, and for these bytes
    path: tests/fixtures/signed.json
    reason: the key of the example in RFC 7515
    owner: media-team
    approver: ana@platform
    expires: 2027-06-30
    content: 1f7a7a472abf3dd9643fd615f6da379c4acb3e3a
"""

import os
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import yaml

from fleet.errors import FleetError
from fleet.git.objects import Entry
from fleet.policy.approval import Approval
from fleet.template.answers import load, not_yaml, refuse_long

WAIVERS_FILE = "conventions.yml"

KEYS = frozenset({"id", "path", "reason", "owner", "approver", "expires", "content"})

# The environment variable with the day on which everything is judged.
TODAY = "FLEET_TODAY"

# The `content` of a waived path that was deleted on purpose.
ABSENT = "absent"


@dataclass(frozen=True)
class Waiver:
    """A waiver of a convention, if there is an `id`: for one file if there is a `path` too, otherwise for the whole service.

    With a `path` alone, a waiver for a file of the platform, whose bytes may differ from the template's.
    """

    id: str
    path: str
    reason: str
    owner: str
    approver: str
    expires: date
    content: str
    # Why the waiver is void by the policy, and the day from which that counts, if it is not in force yet.
    objection: str = ""
    objection_since: date | None = None

    @property
    def subject(self) -> str:
        return f"{self.id} in {self.path}" if self.id and self.path else self.id or self.path

    def covers(self, id_: str, path: str) -> bool:
        """Return whether the waiver is for findings of this convention in this path."""
        return self.id == id_ and self.path in (path, "")

    def void_because(self, entry: Entry | None, today: date) -> str:
        """Why the waiver is void; empty if it is valid. `entry` is the file at its path now."""
        if self.expires < today:
            return f"expired on {self.expires}"
        if self.objection and not self.objection_since:
            return self.objection
        now = entry.blob if entry else ABSENT
        if self.path and now != self.content:
            return f"was granted for other content: the content has changed, and is now {now}"
        return ""


@dataclass(frozen=True)
class Waivers:
    """The content of conventions.yml. `problems` describe invalid entries."""

    waivers: tuple[Waiver, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, content: bytes | None) -> "Waivers":
        """Parse the file; without a file there are no waivers. Raises FleetError if the file is not a YAML list of waivers."""
        if content is None:
            return cls()
        refuse_long(WAIVERS_FILE, content)
        try:
            written = load(content)
        except (yaml.YAMLError, RecursionError) as error:
            raise not_yaml(WAIVERS_FILE, error) from None
        entries = (written or {}).get("waivers") or [] if isinstance(written or {}, dict) else None
        if not isinstance(entries, list):
            raise FleetError(f"{WAIVERS_FILE} is not a list of waivers under `waivers:`")
        found, problems = [], []
        if unknown := sorted(map(str, (written or {}).keys() - {"waivers"})):
            problems.append(f"unknown key {', '.join(unknown)}: write a list under `waivers` only")
        for number, entry in enumerate(entries, 1):
            if problem := _problem(entry):
                problems.append(f"waiver {number}{_named(entry)}: {problem}")
            else:
                fields = {name: entry.get(name, "") for name in KEYS}
                found.append(Waiver(**fields))
        return cls(tuple(found), tuple(problems))

    def with_objections(self, approval: Approval, today: date) -> "Waivers":
        """Return the waivers with the objections of the policy."""
        since = None if approval.counts_on(today) else approval.since
        found = [(one, approval.object_to(one.approver, one.expires, today)) for one in self.waivers]
        judged = tuple(replace(one, objection=why, objection_since=since) if why else one for one, why in found)
        return replace(self, waivers=judged)

    def of_path(self, path: str) -> Waiver | None:
        """Return the waiver of the template's bytes for a path, valid or void."""
        return next((waiver for waiver in self.waivers if waiver.path == path and not waiver.id), None)


def today() -> date:
    """Return the day in UTC, so that all machines agree; or the day that FLEET_TODAY names. Raises FleetError."""
    if not (written := os.environ.get(TODAY)):
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(written)
    except ValueError:
        raise FleetError(f"{TODAY} is {written!r}, and has to be a day: write it as 2027-03-01") from None


def _problem(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "not a mapping"
    if unknown := sorted(map(str, entry.keys() - KEYS)):
        return f"has the unknown key {', '.join(unknown)}"
    if not (entry.get("id") or entry.get("path")):
        return "needs the `id` of a convention, a `path`, or both for a convention in one file"
    for name in ("id", "path"):
        if not isinstance(entry.get(name, ""), str):
            return f"`{name}` has to be text; it is {entry[name]!r}"
    if entry.get("path", "").endswith("/"):
        return "a folder cannot be waived: name its files"
    for name in ("reason", "owner", "approver"):
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            return f"needs {_A[name]}"
    if not isinstance(entry.get("expires"), date) or isinstance(entry["expires"], datetime):
        return "needs a date in `expires`, as 2027-03-01"
    if entry.get("path") and not isinstance(entry.get("content"), str):
        return (
            f"needs `content`: what `git hash-object {entry['path']}` prints, in quotes; {ABSENT!r} if it was deleted"
        )
    if not isinstance(entry.get("content", ""), str):
        return f"`content` has to be text; it is {entry['content']!r}"
    if entry["approver"].strip() == entry["owner"].strip():
        return "`approver` has to be somebody other than `owner`"
    return ""


_A = {
    "reason": "a `reason`: why the service needs the waiver, and until when",
    "owner": "an `owner`: who will make the waiver unnecessary",
    "approver": "an `approver`: who of the platform team agreed",
}


def _named(entry: Any) -> str:
    name = entry.get("path") or entry.get("id") if isinstance(entry, dict) else None
    return f" ({name})" if name else ""
