"""The rules for the contents of an image, each as a check of the files that were found."""

import json
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.settings import Settings
from packaging.markers import Marker
from packaging.utils import canonicalize_name

from tests.support.base_image import TAG, VERSION
from tests.support.commands import make
from tests.support.containers import PRODUCTION
from tests.support.engine import Engine

ENVIRONMENT = "/opt/venv"
COMPILERS = {"as", "c++", "cargo", "cc", "g++", "gcc", "go", "ld", "make", "rustc", "uv", "uvx"}
FOR_ALL = {"/run/lock", "/tmp", "/var/tmp"}
"""Debian lets every user write to these folders. A read-only file system does not."""

# Every file with its owner and mode, and every module of the environment whose bytecode Python would not use.
LISTING = """
import importlib.util, json, os, struct
files, stale = {}, []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("dev", "proc", "sys")]
    for name in [*folders, *names]:
        path = os.path.join(folder, name)
        found = os.lstat(path)
        files[path] = [found.st_mode, found.st_uid]
        if path.startswith("/opt/venv/lib/") and name.endswith(".py"):
            try:
                with open(importlib.util.cache_from_source(path), "rb") as file:
                    flags, modified, size = struct.unpack("<4xIII", file.read(16))
            except OSError:
                stale.append(path)
            else:
                if not flags and (modified, size) != (int(found.st_mtime), found.st_size):
                    stale.append(path)
print(json.dumps([files, stale]))
"""

# Try to write to each folder, because its mode alone does not decide whether that is possible.
WRITING = """
import json, os
written = []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("dev", "proc", "sys")]
    try:
        with open(os.path.join(folder, "written"), "w"):
            written.append(folder)
    except OSError:
        pass
print(json.dumps(written))
"""


@dataclass(frozen=True)
class Contents:
    config: dict[str, Any]
    files: dict[str, tuple[int, int]]
    """Owner and mode of each file, by its path."""
    stale: list[str]
    """Modules that Python would compile at each start."""
    written: list[str]
    """Folders in which the image's user could create a file, with the restrictions of production."""

    @classmethod
    def of(cls, engine: Engine, image: str) -> "Contents":
        python = ("--rm", "--entrypoint", "python")
        listed = engine.docker("run", *python, "--network", "none", "--user", "0", image, "-c", LISTING)
        files, stale = json.loads(listed.stdout)
        written = engine.docker("run", *python, *PRODUCTION, image, "-c", WRITING)
        return cls(engine.inspect(image)["Config"], files, stale, json.loads(written.stdout))


@dataclass(frozen=True)
class Expected:
    base: Contents
    distributions: set[tuple[str, str]]
    """Name and version of each package for Linux in the list of `make sbom`."""

    @classmethod
    def of(cls, engine: Engine, source: Path) -> "Expected":
        make(source, "sbom")
        bom = json.loads((source / "build/sbom.json").read_text())
        components = [bom["metadata"]["component"], *filter(is_for_the_image, bom["components"])]
        return cls(Contents.of(engine, TAG), {(one["name"], one["version"]) for one in components})


def is_for_the_image(component: dict[str, Any]) -> bool:
    """Return whether the image should have a package of the list of `make sbom`, which is for every system."""
    markers = [one["value"] for one in component.get("properties", ()) if one["name"] == "uv:package:marker"]
    system = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    python = {"python_full_version": VERSION, "python_version": VERSION.rpartition(".")[0]}
    return all(Marker(marker).evaluate({**system, **python}) for marker in markers)


Check = Callable[[Contents, Expected], None]


def runs_as_a_number_that_is_not_root(found: Contents, expected: Expected) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", found.config["User"])


def names_the_port_that_it_listens_on(found: Contents, expected: Expected) -> None:
    port = Settings.model_fields["http_port"].default
    assert list(found.config["ExposedPorts"]) == [f"{port}/tcp"]


def writes_nowhere_but_in_tmp(found: Contents, expected: Expected) -> None:
    assert found.written == ["/tmp"]


def belongs_to_root(found: Contents, expected: Expected) -> None:
    """No user but root can change a file, even without a read-only file system."""
    links = {path for path, (mode, _) in found.files.items() if stat.S_ISLNK(mode)}
    open_ = {path for path, (mode, owner) in found.files.items() if owner != 0 or mode & stat.S_IWOTH} - links
    assert open_ - FOR_ALL == {path for path, (_, owner) in expected.base.files.items() if owner != 0}


def holds_what_its_bill_of_materials_says(found: Contents, expected: Expected) -> None:
    """The packages equal the bill of materials: no package of the dev group, and no missing package."""
    installed = [Path(path).stem.split("-") for path in found.files if path.endswith(".dist-info")]
    assert {(canonicalize_name(name), version) for name, version in installed} == expected.distributions


def holds_no_compiler(found: Contents, expected: Expected) -> None:
    programs = [Path(path) for path, (mode, _) in found.files.items() if mode & 0o111 and not stat.S_ISDIR(mode)]
    assert [path for path in programs if path.parent.name in ("bin", "sbin") and path.name in COMPILERS] == []


def adds_nothing_to_the_base_but_the_environment(found: Contents, expected: Expected) -> None:
    """The image adds no cache, no list of packages, no test and no file of the build."""
    added = {path for path in found.files.keys() - expected.base.files.keys() if "__pycache__" not in path}
    assert {path for path in added if not f"{path}/".startswith(f"{ENVIRONMENT}/")} == set()


def has_its_bytecode(found: Contents, expected: Expected) -> None:
    """Every module has bytecode, including the standard library's: a read-only file system stores none later."""
    assert found.stale == []
    library = [
        path for path in found.files if re.fullmatch(r"/usr/(local/)?lib/python3\.\d+/asyncio/__pycache__", path)
    ]
    assert len(library) == 1


CHECKS: list[Check] = [
    runs_as_a_number_that_is_not_root,
    names_the_port_that_it_listens_on,
    writes_nowhere_but_in_tmp,
    belongs_to_root,
    holds_what_its_bill_of_materials_says,
    holds_no_compiler,
    adds_nothing_to_the_base_but_the_environment,
    has_its_bytecode,
]
