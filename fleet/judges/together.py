"""Tools that take longer to start than to work, run once for many services."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet.cache import write_whole
from fleet.service.service import Service


def remember_together(
    services: list[Service],
    tool: str,
    patterns: Callable[[Service], tuple[str, ...]],
    compute: Callable[[Path], dict[str, Any]],
) -> None:
    """Before `service.remembered(tool, patterns(service), …)` of each: find out all that is not known, in one go.

    `compute` gets a folder with a folder for each of them, and says by the names of these what is to be kept.
    """
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        wanted: dict[str, Path] = {}
        for number, service in enumerate(services):
            files = patterns(service)
            memory = service.memory(tool, files)
            if not memory.exists():
                wanted[str(number)] = memory
                Path(folder, str(number)).mkdir()
                service.write_to(Path(folder, str(number)), *files)
                service.rest()
        for name, result in compute(Path(folder)).items() if wanted else ():
            write_whole(wanted[name], json.dumps(result))
