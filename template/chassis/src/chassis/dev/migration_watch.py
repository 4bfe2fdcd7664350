"""Apply migrations while `make dev` runs, as soon as their files are saved."""

import sys
import time
import traceback
from importlib.util import cache_from_source
from pathlib import Path

from chassis.database import migrate
from chassis.service import Service

SETTLE_SECONDS = 0.5
"""How long the files stay unchanged before they are applied: `make migration` writes a file and then formats it."""


class MigrationWatch:
    """The migrations of a running service: a new file is applied, and the newest one again after an edit."""

    def __init__(self, service: Service, url: str) -> None:
        self._service = service
        self._url = url
        self._applied = self._files()
        self._found = self._applied
        self._unchanged_since = time.monotonic()

    def look(self) -> None:
        """Apply the files that have changed since the last look and are complete. Print the result."""
        found = self._files()
        if found != self._found:
            self._found, self._unchanged_since = found, time.monotonic()
        if found == self._applied or time.monotonic() - self._unchanged_since < SETTLE_SECONDS:
            return
        changed = sorted(path for path, state in found.items() if self._applied.get(path) != state)
        gone = sorted(path.name for path in self._applied.keys() - found.keys())
        self._applied = found
        for path in changed:
            # Python takes the compiled file of an edit in the same second for the compiled file of this edit.
            Path(cache_from_source(path)).unlink(missing_ok=True)
        if gone and not changed:
            print(
                f"{self._service.name}: {', '.join(gone)} is gone. If the database has applied the migration, it keeps the "
                "tables and columns: restore the file, or stop, and delete .dev/ to start with an empty database",
                file=sys.stderr,
                flush=True,
            )
            return
        try:
            self._apply([path.name for path in changed])
        except (migrate.DatabaseUnusable, migrate.MigrationFailed) as error:
            self._report(f"{error}\nSave the file again after a correction; `rm -r .dev` gives an empty database.")
        except Exception:  # a migration is code of the team, and may raise anything
            self._report(traceback.format_exc(limit=-1))

    def _apply(self, changed: list[str]) -> None:
        try:
            migrate.upgrade(self._service, self._url)
        except migrate.HistoryDiffers:
            # An edit of an older migration is a mistake: only the newest one is undone, with the migration that validates it.
            names = sorted(path.name for path in self._applied)
            edited = names.index(changed[0])
            if len(changed) > 1 or not all("_validate_" in name for name in names[edited + 1 :]):
                raise
            try:
                migrate.undo_newest(self._service, self._url, len(names) - edited)
            except Exception as error:
                raise migrate.MigrationFailed(
                    f"the database has applied {changed[0]} as it was before the edit, and its `downgrade` failed: {error}"
                ) from error
            migrate.upgrade(self._service, self._url)
        if changed:
            print(f"{self._service.name}: the database has {', '.join(changed)} now", flush=True)

    def _report(self, problem: str) -> None:
        print(f"{self._service.name}: the migration was not applied: {problem}", file=sys.stderr, flush=True)

    def _files(self) -> dict[Path, tuple[int, int]]:
        """Return the time of change and the size of each migration."""
        found = {}
        for path in self._service.versions.glob("[0-9]*_*.py"):
            try:
                state = path.stat()
            except FileNotFoundError:
                continue
            found[path] = state.st_mtime_ns, state.st_size
        return found
