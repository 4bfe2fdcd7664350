"""Migrations: their order, and their effect on a service that runs at the same time."""

import re
from collections import Counter
from collections.abc import Iterator

from fleet.conventions import Convention, Problem
from fleet.judges import squawk
from fleet.judges.squawk import UNREPEATABLE
from fleet.service import revisions
from fleet.service.service import Service

VERSIONS = "src/*/migrations/versions/*.py"

# The rules of Squawk for changes that break the previous version of the service, which still runs during a release.
CONTRACTS = re.compile("ban-drop-.*|renaming-.*|adding-required-field|requiring-value")
DECLARED = re.compile(r"^\s*# contract: \S.* no longer \S", re.MULTILINE)


def _migrations(service: Service) -> list[str]:
    return [path for path in service.files(VERSIONS) if not path.endswith("/__init__.py")]


def _new(service: Service) -> list[str]:
    """Return the migrations that the base does not have. Without a base, no migration counts as new."""
    known = service.base.tree if service.base else service.tree
    return [path for path in _migrations(service) if path not in known]


class OneHead(Convention):
    """With two heads `upgrade` does not know which way to go, and a deployment stops halfway."""

    id = "migration-one-head"
    remedy = "append one migration to the other: rename the later file, and set its revision and down_revision"

    def check(self, service: Service) -> Iterator[Problem]:
        known = [revisions.read(path, service.read(path) or b"") for path in _migrations(service)]
        times = Counter(revision.id for revision in known)
        for revision in known:
            if times[revision.id] > 1:
                yield Problem(revision.path, f"{revision.id} is the id of {times[revision.id]} migrations")
            for id_ in set(revision.after) - times.keys():
                yield Problem(revision.path, f"the migration comes after {id_}, which is missing")
        heads = revisions.heads(known)
        if len(heads) > 1:
            listed = ", ".join(head.id for head in heads)
            yield from (Problem(head.path, f"the migration is one of {len(heads)} heads: {listed}") for head in heads)
        reached = revisions.ancestry(heads, known)
        yield from (Problem(one.path, "the migration comes after itself") for one in known if one not in reached)


class Unedited(Convention):
    """An applied migration is never applied again, so after an edit databases differ forever."""

    id = "migration-unedited"
    remedy = (
        "restore the migration, and write another one; a squash names what it replaces "
        "(docs/how-to/squash-migrations.md)"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        base = service.base
        replaced = _replaced(service)
        for path in _migrations(base) if base else ():
            now = service.tree.get(path)
            if path in replaced:
                continue
            if now is None:
                yield Problem(path, "the migration is on the base branch, and is missing here")
            elif base and now.blob != base.tree[path].blob:
                yield Problem(path, "the migration differs from the base branch")


def _replaced(service: Service) -> set[str]:
    """Return the migrations of the base that a squash replaces: all up to its number. `migrate` refuses any other database."""
    known = [revisions.read(path, service.read(path) or b"") for path in _migrations(service)]
    squashed = {revision.id for revision in known if revision.replaces}
    base = service.base
    if not squashed or base is None:
        return set()
    before = [revisions.read(path, base.read(path) or b"") for path in _migrations(base)]
    return {one.path for one in revisions.ancestry([one for one in before if one.id in squashed], before)}


class Safe(Convention):
    """A lock that a migration holds for minutes stops every request that needs the table."""

    id = "migration-safe"
    remedy = (
        "follow the alternative of the rule in https://squawkhq.com/docs/rules; put a statement that must run outside of "
        "the transaction into `with op.get_context().autocommit_block():`"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        for one in squawk.judge(service, _new(service)):
            if not one.rule:
                read = "the migration cannot be read as SQL without a database and without the service's code"
                what = f"{read}: {one.what}"
                yield Problem(one.path, what, one.line)
            elif one.rule != UNREPEATABLE[0] and not CONTRACTS.fullmatch(one.rule):
                yield Problem(one.path, f"{one.what} ({one.rule})", one.line)


class Repeatable(Convention):
    """The statements of an autocommit block are kept when the migration fails, and run again when it is repeated."""

    id = "migration-repeatable"
    remedy = (
        "put statements that roll back after the last `autocommit_block`, or into another migration; in the block, write "
        "IF EXISTS or IF NOT EXISTS (`if_exists=True`, `if_not_exists=True`)"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        for one in squawk.judge(service, _new(service)):
            if one.rule == UNREPEATABLE[0]:
                yield Problem(one.path, one.what, one.line)


class ExpandContract(Convention):
    """While a release is rolled out or back, the previous version works on the same tables."""

    id = "migration-expand-contract"
    remedy = (
        "add the new shape in addition to the old shape, and remove the old shape in a later release, whose migration "
        "declares this by a line: `# contract: 2027.3 no longer reads it`"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        for one in squawk.judge(service, _new(service)):
            if CONTRACTS.fullmatch(one.rule) and not DECLARED.search(service.text(one.path)):
                yield Problem(one.path, f"{one.what} ({one.rule})", one.line)
