"""Run a tool once for many services, if the tool takes longer to start than to work."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet.cache import write_atomically
from fleet.service.service import Service


def compute_together(
    services: list[Service],
    tool: str,
    patterns: Callable[[Service], tuple[str, ...]],
    compute: Callable[[Path], dict[str, Any]],
) -> None:
    """Compute in one run all missing results of `service.compute_once(tool, patterns(service), …)`.

    `compute` gets a folder with a folder for each service, and returns the results by the names of these folders.
    """
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        wanted: dict[str, Path] = {}
        for number, service in enumerate(services):
            files = patterns(service)
            memory = service.result_file(tool, files)
            if not memory.exists():
                wanted[str(number)] = memory
                Path(folder, str(number)).mkdir()
                service.write_to(Path(folder, str(number)), *files)
                service.close()
        for name, result in compute(Path(folder)).items() if wanted else ():
            write_atomically(wanted[name], json.dumps(result))
