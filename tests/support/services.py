"""The types of the fixtures `render` and `birth`, and a copy of the packages that another service has installed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

Render = Callable[..., Path]
Birth = Callable[..., Path]


def lend_packages(born: Path, service: Path) -> None:
    """Copy the environment of another service, with compiled packages. `make setup` then installs the differences."""
    source, target = born / ".venv", service / ".venv"
    shutil.copytree(
        source, target, symlinks=True, copy_function=os.link, ignore=lambda folder, names: {".ready"} & set(names)
    )
    for script in (target / "bin").iterdir():
        if not script.is_symlink() and (text := script.read_bytes()).startswith(b"#!"):  # it names its Python
            mode = script.stat().st_mode
            script.unlink()
            script.write_bytes(text.replace(bytes(source), bytes(target)))
            script.chmod(mode)
