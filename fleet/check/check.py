"""`fleet check`: look at one service, in a process of its own, which ends if one call in it takes too long."""

from dataclasses import dataclass
from pathlib import Path

from fleet.check.findings import Finding
from fleet.errors import FleetError, told
from fleet.processes.limits import limit_seconds
from fleet.processes.parallel import Lost, in_processes


@dataclass(frozen=True)
class Wish:
    """What `fleet check` was asked to do."""

    path: Path
    ref: str | None = None
    base: str | None = None
    only_drift: bool = False


@dataclass(frozen=True)
class Report:
    """What was found in a service: `name` is that of its folder, `version` the template version that it has recorded."""

    name: str
    version: str
    findings: list[Finding]


def check(wish: Wish) -> Report:
    """Raises FleetError."""
    limit_seconds()
    ((_, result),) = in_processes(examine, [wish], jobs=1)
    if isinstance(result, Lost):
        raise FleetError(result.why)
    return result


def examine(wish: Wish) -> Report | Lost:
    """In a process of its own, which alone imports what checks need."""
    from fleet.check.checks import CHECKS, DRIFT
    from fleet.processes.limits import limited
    from fleet.service.service import Service

    try:
        with limited("the service"):
            service = Service(wish.path, wish.ref, wish.base)
            found = [finding for check in (DRIFT if wish.only_drift else CHECKS) for finding in check(service)]
            return Report(service.root.resolve().name, service.answers.version, found)
    except (FleetError, OSError) as error:
        return Lost(str(told(error)))
