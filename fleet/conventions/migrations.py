"""The service's migrations: their order, and what the new ones do to those who work meanwhile."""

import re
from collections import Counter
from collections.abc import Iterator

from fleet.conventions import Convention, Problem
from fleet.judges import squawk
from fleet.judges.squawk import UNREPEATABLE
from fleet.service import revisions
from fleet.service.service import Service

VERSIONS = "src/*/migrations/versions/*.py"

# What the version that still runs does not survive.
CONTRACTS = re.compile("ban-drop-.*|renaming-.*|adding-required-field|requiring-value")
DECLARED = re.compile(r"^\s*# contract: \S.* no longer \S", re.MULTILINE)


def _migrations(service: Service) -> list[str]:
    return [path for path in service.files(VERSIONS) if not path.endswith("/__init__.py")]


def _new(service: Service) -> list[str]:
    """The migrations that the base does not have; none without a base: what is new is not known."""
    known = service.base.tree if service.base else service.tree
    return [path for path in _migrations(service) if path not in known]


class OneHead(Convention):
    """With two ends `upgrade` knows no way, and a deployment stops halfway."""

    id = "migration-one-head"
    remedy = "put one behind the other: rename the later one, and set its revision and down_revision"

    def check(self, service: Service) -> Iterator[Problem]:
        known = [revisions.read(path, service.read(path) or b"") for path in _migrations(service)]
        times = Counter(revision.id for revision in known)
        for revision in known:
            if times[revision.id] > 1:
                yield Problem(revision.path, f"{revision.id} is the id of {times[revision.id]} migrations")
            for id_ in set(revision.after) - times.keys():
                yield Problem(revision.path, f"it comes after {id_}, which is not there")
        heads = revisions.heads(known)
        if len(heads) > 1:
            listed = ", ".join(head.id for head in heads)
            yield from (Problem(head.path, f"it is one of {len(heads)} ends: {listed}") for head in heads)
        reached = revisions.ancestry(heads, known)
        yield from (Problem(one.path, "it comes after itself") for one in known if one not in reached)


class Unedited(Convention):
    """A migration that was applied is never applied again, so that an edit makes databases differ for ever."""

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
                yield Problem(path, "it is gone, and was on the base branch")
            elif base and now.blob != base.tree[path].blob:
                yield Problem(path, "it is not what it was on the base branch")


def _replaced(service: Service) -> set[str]:
    """The base's migrations that a squash replaces: up to its own number. `migrate` checks the databases."""
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
        "https://squawkhq.com/docs/rules has the way out of each rule; what must be outside of the transaction goes "
        "into `with op.get_context().autocommit_block():`"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        for one in squawk.found(service, _new(service)):
            if not one.rule:
                what = f"it cannot be read as SQL, without a database and without the service's code: {one.what}"
                yield Problem(one.path, what, one.line)
            elif one.rule != UNREPEATABLE[0] and not CONTRACTS.fullmatch(one.rule):
                yield Problem(one.path, f"{one.what} ({one.rule})", one.line)


class Repeatable(Convention):
    """The statements of an autocommit block stay when the migration fails, and run again when it is repeated."""

    id = "migration-repeatable"
    remedy = (
        "put statements that roll back after the last `autocommit_block`, or into another migration; in the block, write "
        "IF EXISTS or IF NOT EXISTS (`if_exists=True`, `if_not_exists=True`)"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        for one in squawk.found(service, _new(service)):
            if one.rule == UNREPEATABLE[0]:
                yield Problem(one.path, one.what, one.line)


class ExpandContract(Convention):
    """While a release is rolled out or back, the version before it works on the same tables."""

    id = "migration-expand-contract"
    remedy = (
        "add what is new beside it, and remove what is old in a later release, with a line in the migration that says "
        "so: `# contract: 2027.3 no longer reads it`"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        for one in squawk.found(service, _new(service)):
            if CONTRACTS.fullmatch(one.rule) and not DECLARED.search(service.text(one.path)):
                yield Problem(one.path, f"{one.what} ({one.rule})", one.line)
