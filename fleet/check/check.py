"""`fleet check`: examine one service in a process of its own, which ends if one call takes too long."""

from dataclasses import dataclass
from pathlib import Path

from fleet.check.findings import Finding
from fleet.errors import FleetError, as_fleet_error
from fleet.processes.parallel import Failure, in_processes
from fleet.processes.resource_limits import limit_seconds


@dataclass(frozen=True)
class Options:
    """The options of `fleet check`."""

    path: Path
    ref: str | None = None
    base: str | None = None
    only_drift: bool = False


@dataclass(frozen=True)
class Report:
    """The findings in a service. `name` is the name of its folder, `version` is the recorded template version."""

    name: str
    version: str
    findings: list[Finding]


def check(options: Options) -> Report:
    """Examine a service. Raises FleetError."""
    limit_seconds()
    ((_, result),) = in_processes(examine, [options], jobs=1)
    if isinstance(result, Failure):
        raise FleetError(result.why)
    return result


def examine(options: Options) -> Report | Failure:
    """Run the checks in a process of its own. The imports are here, because only that process needs them."""
    from fleet.check.checks import CHECKS, DRIFT, find_all
    from fleet.check.levels import apply_levels
    from fleet.processes.resource_limits import limit_resources
    from fleet.service.service import Service
    from fleet.service.waivers import today

    try:
        with limit_resources("the service"):
            service = Service(options.path, options.ref, options.base)
            found = list(find_all(DRIFT if options.only_drift else CHECKS, service))
            if not options.only_drift:
                found = list(apply_levels(found, service.policy, service.traits, today()))
            return Report(service.root.resolve().name, service.answers.version, found)
    except (FleetError, OSError) as error:
        return Failure(str(as_fleet_error(error)))
