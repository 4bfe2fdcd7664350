"""The record of the migrations that a database has applied: the number and a digest of each.

The digest covers the effect of a migration. A number alone may belong to two migrations: to a squash and a migration
that it replaces, or to a withdrawn migration and its successor. `migrate` refuses such a second migration.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, text

TABLE = """
    CREATE TABLE IF NOT EXISTS chassis.migrations (
        revision text CONSTRAINT pk_migrations PRIMARY KEY,
        digest text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
RECORD = text("""
    INSERT INTO chassis.migrations (revision, digest) VALUES (:revision, :digest)
    ON CONFLICT (revision) DO UPDATE SET digest = excluded.digest, applied_at = now()
""")

IGNORED = {"annotation", "returns", "type_comment", "type_params", "kind", "ctx"}
"""Fields of a syntax tree that do not change the effect of a migration, or that some versions of Python lack."""


def read(connection: Connection) -> dict[str, str]:
    """Read the digests of the migrations that the database has applied, by revision."""
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS chassis"))
    connection.execute(text(TABLE))
    return {row.revision: row.digest for row in connection.execute(text("SELECT * FROM chassis.migrations"))}


def record(connection: Connection, digests: Mapping[str, str]) -> None:
    """Record these migrations as applied, in the transaction of the connection."""
    for revision, digest in digests.items():
        connection.execute(RECORD, {"revision": revision, "digest": digest})


def forget(connection: Connection, revision: str) -> None:
    """Record that a migration was undone, in the transaction of the connection."""
    connection.execute(text("DELETE FROM chassis.migrations WHERE revision = :revision"), {"revision": revision})


def digests(script: ScriptDirectory) -> dict[str, str]:
    """Compute the digest of each migration, oldest first, from its effect and the digests of its ancestors.

    A migration with `replaces = "<digest>"` has that digest: it makes the same tables as the migrations that it
    replaces.
    """
    found: dict[str, str] = {}
    for migration in reversed([*script.walk_revisions()]):
        before = [found[revision] for revision in sorted(_parents(migration))]
        content = repr([migration.revision, before, _meaning(ast.parse(Path(migration.path).read_bytes()))])
        replaced = getattr(migration.module, "replaces", None)
        found[migration.revision] = replaced or hashlib.sha256(content.encode()).hexdigest()[:16]
    return found


def ancestry(script: ScriptDirectory, applied: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Return the known digests that a database at these revisions has applied."""
    heads = [revision for revision in applied if revision in known]
    before = {migration.revision for head in heads for migration in script.iterate_revisions(head, "base")}
    return {revision: digest for revision, digest in known.items() if revision in before}


def _parents(migration: Script) -> Sequence[str]:
    parents = migration.down_revision or ()
    return (parents,) if isinstance(parents, str) else parents


def _meaning(node: object) -> object:
    """Reduce a syntax tree: no comments, formatting, docstrings, imports, annotations or `downgrade`."""
    if isinstance(node, list):
        return [_meaning(each) for each in node if not _does_nothing(each)]
    if isinstance(node, ast.JoinedStr):
        return ["JoinedStr", *_parts(node)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return " ".join(node.value.split())
    if isinstance(node, ast.AST):
        return [type(node).__name__, *_fields(node)]
    return repr(node)


def _parts(node: ast.JoinedStr) -> Iterator[object]:
    # Versions of Python split the text of an f-string at different places.
    for is_text, values in groupby(node.values, key=lambda value: isinstance(value, ast.Constant)):
        if not is_text:
            yield from map(_meaning, values)
        elif words := "".join(str(vars(value)["value"]) for value in values).split():
            yield " ".join(words)


def _fields(node: ast.AST) -> Iterator[tuple[str, object]]:
    # Leave empty fields out, because the tree of a newer Python has more of them.
    for name, value in ast.iter_fields(node):
        if name not in IGNORED and value is not None and value != []:
            yield name, _meaning(value)


def _does_nothing(node: object) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name == "downgrade"
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)
