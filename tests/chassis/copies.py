"""The tiny service with migrations in a folder of the test."""

import dataclasses
import types
from pathlib import Path

from chassis.service import Service


def copy_of(service: Service, folder: Path) -> Service:
    """Return the service with the migrations in this folder."""
    package = types.ModuleType("tiny_copy")
    package.__path__ = [str(folder)]
    return dataclasses.replace(service, package=package)
