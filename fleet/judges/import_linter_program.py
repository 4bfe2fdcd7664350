"""A program that runs import-linter on one service after the other, because import-linter takes longer to start than to work.

python -I import_linter_program.py FOLDER… writes JSON to stdout: for each folder the exit status and import-linter's output.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout, suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from grimp.application.config import settings
from grimp.application.ports.caching import Cache, CacheMiss
from grimp.application.ports.filesystem import AbstractFileSystem
from grimp.application.ports.modulefinder import ModuleFile
from grimp.application.ports.packagefinder import AbstractPackageFinder
from grimp.domain.valueobjects import DirectImport, Module
from importlinter.application.use_cases import create_report, lint_imports, read_user_options
from importlinter.configuration import configure
from rich.live import Live

RULES = ".importlinter"
PATHS = ("src", "chassis/src")


class _InFolder(AbstractPackageFinder):
    """Find packages by their folders. grimp's own finder asks Python, which imports the parents of a package."""

    def determine_package_directories(self, package_name: str, file_system: AbstractFileSystem) -> set[str]:
        found = {str(folder) for path in PATHS if (folder := Path.cwd() / path / package_name).is_dir()}
        if not package_name.isidentifier() or not found:
            raise ValueError(f"there is no package {package_name}")
        return found


class _ChassisCache(Cache):
    """Keep the imports of a release's chassis in memory, for the next service that links to the same chassis."""

    known: ClassVar[dict[tuple[object, ...], set[DirectImport]]] = {}

    @classmethod
    def cache_dir_or_default(cls, cache_dir: str | None) -> str:
        return cache_dir or ""

    def read_imports(self, module_file: ModuleFile) -> set[DirectImport]:
        found = self.known.get((*self._shared, module_file.module.name))
        if found is None or self._names_the_service(found):
            raise CacheMiss
        return found

    def write(self, imports_by_module: dict[Module, set[DirectImport]]) -> None:
        if shared := self._shared:
            for module, found in imports_by_module.items():
                if module.root.name == "chassis" and not self._names_the_service(found):
                    self.known[*shared, module.name] = found

    @cached_property
    def _shared(self) -> tuple[object, ...]:
        """The key of the linked chassis: its folder and how its imports are read; empty if the service has its own chassis."""
        link = Path.cwd() / "chassis"
        if not link.is_symlink() or (Path.cwd() / "src/chassis").exists():
            return ()
        return str(link.resolve()), self.include_external_packages, self.exclude_type_checking_imports

    def _names_the_service(self, found: set[DirectImport]) -> bool:
        """Whether an import means the service, because the service has the name of a package that the chassis uses."""
        return any(one.imported.name.partition(".")[0] in self._own for one in found)

    @cached_property
    def _own(self) -> set[str]:
        return {package.name for package in self.found_packages} - {"chassis"}


def lint(folder: str) -> tuple[int, str]:
    """Lint the service in a folder. Its code is not imported, and the folder is not in Python's path."""
    os.chdir(folder)
    options = read_user_options(RULES)
    if "contract_types" in options.session_options:
        return 1, f"{RULES} has contract_types, which is code of the service, and fleet runs none: remove the line"
    # Ask first whether there is anything to report, because writing the report takes as long as checking. A failure here is
    # reported below. The first service always fails here, because only `lint_imports` registers the types of contracts.
    with redirect_stdout(io.StringIO()) as printed:
        with suppress(Exception):
            if options.contracts_options and not create_report(options, cache_dir="").contains_failures:
                return 0, ""
        is_kept = lint_imports(config_filename=RULES, cache_dir="", no_logo=True)
    return int(not is_kept), printed.getvalue()


if __name__ == "__main__":
    # Nobody sees what moves on a terminal, which takes three threads for each service.
    Live.start = Live.stop = lambda *_, **__: None
    configure()
    settings.configure(PACKAGE_FINDER=_InFolder(), CACHE_CLASS=_ChassisCache)
    sys.stdout.write(json.dumps([lint(folder) for folder in sys.argv[1:]]))
