"""Folders that look like checkouts of services, for tests that start nothing."""

from pathlib import Path

from fleet.up.product import Checkout


def write_checkout(folder: Path, name: str, settings: str = "", **answers: str) -> Path:
    """Write the few files of a service that `fleet up` reads before it starts anything."""
    package = folder / "src" / name.replace("-", "_")
    package.mkdir(parents=True)
    (package / "__main__.py").touch()
    (package / "settings.py").write_text(settings or "class Settings(chassis.settings.Settings): ...\n")
    (folder / "Makefile").touch()
    recorded = {"service_name": name, **answers}
    (folder / ".copier-answers.yml").write_text("".join(f"{key}: {value}\n" for key, value in recorded.items()))
    return folder


def checkout(folder: Path, name: str, settings: str = "", **answers: str) -> Checkout:
    return Checkout(write_checkout(folder, name, settings), {"service_name": name, **answers}, alias=folder.name)
