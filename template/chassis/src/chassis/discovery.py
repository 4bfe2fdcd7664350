"""Find the modules of a package, and whether the chassis here has a module."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

_CHASSIS = Path(__file__).parent


def modules_in(package: ModuleType) -> Iterator[ModuleType]:
    """Import and yield every module below the package, by its path.

    It reads the folders, because the standard library's `walk_packages` skips a folder without an `__init__.py`.
    """
    for root in map(Path, package.__path__):
        for parts in sorted(file.relative_to(root).with_suffix("").parts for file in root.rglob("*.py")):
            names = parts[:-1] if parts[-1] == "__init__" else parts
            if names and not any(name.startswith(".") for name in names):
                yield import_module(".".join((package.__name__, *names)))


def has_module(name: str) -> bool:
    """Return whether the chassis here has that module: the answers of a service leave modules out.

    It looks for the file, because Python imports a folder that an update has emptied, if compiled files are left in it.
    """
    return _CHASSIS.joinpath(*name.split(".")[1:]).with_suffix(".py").is_file()
