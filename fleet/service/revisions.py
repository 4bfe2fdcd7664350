"""Read the chain of a service's migrations, and append the migrations of a new aggregate.

The template numbers the new migrations as if the team had never written any. They follow the service's own last revision.
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleet.errors import FleetError

MIGRATION = re.compile(r"^(src/[^/]+/migrations/versions/)(\d+)(_.+\.py)$")


@dataclass(frozen=True)
class Revision:
    """One migration of the service."""

    path: str
    id: str
    after: tuple[str, ...]
    replaces: str = ""


def identity(path: str) -> str:
    """Return the path without the number of its migration, because the number differs between services."""
    found = MIGRATION.match(path)
    return f"{found[1]}{found[3]}" if found else path


def append_migrations(seeds: Mapping[str, bytes], existing: Mapping[str, bytes]) -> dict[str, bytes]:
    """Renumber the migrations among the seeds to follow the existing migrations, and return all seeds.

    Both arguments map paths to contents. Raises FleetError if the existing migrations have several heads, or cannot be read.
    """
    migrations = sorted(path for path in seeds if MIGRATION.match(path))
    result = {path: content for path, content in seeds.items() if path not in migrations}
    if not migrations:
        return result
    revisions = [read(path, content) for path, content in sorted(existing.items())]
    head = _head(revisions)
    number = max([int(revision.id) for revision in revisions if revision.id.isdigit()], default=0)
    for path in migrations:
        number += 1
        folder, _, name = MIGRATION.match(path).groups()  # ty: ignore[missing-union-attribute]
        text = seeds[path].decode()
        text = re.sub(r"^revision = .*$", f'revision = "{number:04}"', text, flags=re.MULTILINE)
        text = re.sub(
            r"^down_revision = .*$", f'down_revision = "{head}"' if head else "down_revision = None", text, flags=re.M
        )
        head = f"{number:04}"
        result[f"{folder}{head}{name}"] = text.encode()
    return result


def read(path: str, content: bytes) -> Revision:
    """Read the place of a migration in the chain without running the migration. Raises FleetError."""
    try:
        body = ast.parse(content).body
        assigned: dict[str, object] = {}
        for node in body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision", "replaces"):
                assigned[target.id] = ast.literal_eval(node.value)  # ty: ignore[missing-attribute]
        after = assigned.get("down_revision")
        return Revision(
            path,
            str(assigned["revision"]),
            tuple(after) if isinstance(after, tuple) else (str(after),) * bool(after),
            str(assigned.get("replaces", "")),
        )
    except (SyntaxError, ValueError, KeyError):
        raise FleetError(f'{path} does not assign a plain text to revision: write `revision = "…"` there') from None


def heads(revisions: Sequence[Revision]) -> list[Revision]:
    """Return the migrations that no other migration follows."""
    followed = {id_ for revision in revisions for id_ in revision.after}
    return [revision for revision in revisions if revision.id not in followed]


def ancestry(heads: Iterable[Revision], revisions: Sequence[Revision]) -> set[Revision]:
    """Return the given migrations and all that they follow."""
    found: set[Revision] = set()
    ahead = list(heads)
    while ahead:
        revision = ahead.pop()
        if revision not in found:
            found.add(revision)
            ahead += [one for one in revisions if one.id in revision.after]
    return found


def _head(revisions: Sequence[Revision]) -> str:
    found = heads(revisions)
    if len(found) > 1:
        listed = ", ".join(revision.path for revision in found)
        raise FleetError(f"the service's migrations have {len(found)} heads: {listed}. Append one to the other first")
    return found[0].id if found else ""
