"""A program that runs import-linter on one service after the other, because import-linter takes longer to start than to work.

python -I import_linter_program.py FOLDER… writes JSON to stdout: for each folder the exit status and import-linter's output.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from grimp.adaptors.modulefinder import ModuleFinder
from grimp.application.config import settings
from grimp.application.ports.caching import Cache, CacheMiss
from grimp.application.ports.filesystem import AbstractFileSystem
from grimp.application.ports.modulefinder import FoundPackage, ModuleFile
from grimp.application.ports.packagefinder import AbstractPackageFinder
from grimp.domain.valueobjects import DirectImport, Module
from importlinter.application.use_cases import create_report, lint_imports, read_user_options
from importlinter.application.user_options import UserOptions
from importlinter.configuration import configure
from rich.live import Live

RULES = ".importlinter"
PATHS = ("src", "chassis/src")


class _InFolder(AbstractPackageFinder):
    """Find packages by their folders. grimp's own finder asks Python, which imports the parents of a package."""

    def determine_package_directories(self, package_name: str, file_system: AbstractFileSystem) -> set[str]:
        # Links are resolved, so that the chassis of a release is in the same folder for each service that links to it.
        found = {os.path.realpath(path) for one in PATHS if os.path.isdir(path := os.path.join(one, package_name))}
        if not package_name.isidentifier() or not found:
            raise ValueError(f"there is no package {package_name}")
        return found


class _ModulesOnce(ModuleFinder):
    """Look only once for the modules of a folder that services share: the chassis of a release."""

    known: ClassVar[dict[tuple[str, str], FoundPackage]] = {}

    def find_package(self, package_name: str, package_directory: str, file_system: AbstractFileSystem) -> FoundPackage:
        if Path(package_directory).is_relative_to(os.path.realpath(".")):
            return super().find_package(package_name, package_directory, file_system)
        key = package_name, package_directory
        if key not in self.known:
            self.known[key] = super().find_package(package_name, package_directory, file_system)
        return self.known[key]


class _KnownToKeep(Exception):
    """The service has the imports and the contracts of an earlier service, which keeps the contracts."""


class _ChassisCache(Cache):
    """Keep the imports of a release's chassis in memory, for the next service that links to the same chassis.

    Also remember the imports and contracts of services that keep their contracts: many services differ only in the name of their
    package.
    """

    # The imports of each module, and the packages that it imports.
    known: ClassVar[dict[tuple[object, ...], tuple[set[DirectImport], set[str]]]] = {}
    kept: ClassVar[set[object]] = set()
    # The imports and contracts of the service that is judged now; None if only import-linter can judge them.
    current: ClassVar[object] = None

    @classmethod
    def cache_dir_or_default(cls, cache_dir: str | None) -> str:
        return cache_dir or ""

    def read_imports(self, module_file: ModuleFile) -> set[DirectImport]:
        found, imported = self.known.get((*self._shared, module_file.module.name), (None, set()))
        # The package of a service may have the name of a package that the chassis imports: the chassis is then read again.
        if found is None or imported & self._own:
            raise CacheMiss
        return found

    def write(self, imports_by_module: dict[Module, set[DirectImport]]) -> None:
        type(self).current = None
        if shared := self._shared:
            own = {module: found for module, found in imports_by_module.items() if not self._keep(module, found)}
            type(self).current = self._without_name(own, shared)
        if self.current in self.kept:
            raise _KnownToKeep

    def _keep(self, module: Module, found: set[DirectImport]) -> bool:
        """Keep the imports of a module of the release's chassis. Return False for a module that belongs to the service."""
        if module.package_name != "chassis":
            return False
        key = *self._shared, module.name
        if key not in self.known:
            imported = {one.imported.package_name for one in found}
            if imported & self._own:
                return False
            self.known[key] = found, imported
        return not self.known[key][1] & self._own

    def _without_name(self, imports: dict[Module, set[DirectImport]], shared: tuple[object, ...]) -> object:
        """Return a key of the contracts and imports, with True in the place of the package's name; None for several packages."""
        if len(self._own) != 1:
            return None
        (own,) = self._own

        def parts(name: str) -> tuple[bool | str, ...]:
            return tuple(part == own or part for part in name.split("."))

        found = {parts(module.name): _imported(one, parts) for module, one in imports.items()}
        spaces = (parts(name) for package in self.found_packages for name in package.namespace_packages)
        contracts = re.split(rf"\b{re.escape(own)}\b", Path(RULES).read_text())
        return shared, tuple(contracts), frozenset(spaces), frozenset(found.items())

    @cached_property
    def _shared(self) -> tuple[object, ...]:
        """The key of the linked chassis: its folder and how its imports are read; empty if the service has its own chassis."""
        link = Path.cwd() / "chassis"
        if not link.is_symlink() or (Path.cwd() / "src/chassis").exists():
            return ()
        return str(link.resolve()), self.include_external_packages, self.exclude_type_checking_imports

    @cached_property
    def _own(self) -> set[str]:
        return {package.name for package in self.found_packages} - {"chassis"}


def _imported(found: set[DirectImport], parts: Callable[[str], object]) -> frozenset[object]:
    return frozenset((parts(one.imported.name), one.is_lazy) for one in found)


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
            if options.contracts_options and _keeps(options):
                return 0, ""
        is_kept = lint_imports(config_filename=RULES, cache_dir="", no_logo=True)
    return int(not is_kept), printed.getvalue()


def _keeps(options: UserOptions) -> bool:
    try:
        is_kept = not create_report(options, cache_dir="").contains_failures
    except _KnownToKeep:
        return True
    if is_kept and _ChassisCache.current:
        _ChassisCache.kept.add(_ChassisCache.current)
    return is_kept


if __name__ == "__main__":
    # A moving display would take three threads for each service, and nobody would see it.
    Live.start = Live.stop = lambda *_, **__: None
    configure()
    settings.configure(MODULE_FINDER=_ModulesOnce(), PACKAGE_FINDER=_InFolder(), CACHE_CLASS=_ChassisCache)
    sys.stdout.write(json.dumps([lint(folder) for folder in sys.argv[1:]]))
