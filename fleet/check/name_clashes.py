"""Names: paths that differ in upper and lower case or in Unicode's form of letters only: not every system can hold both."""

from collections.abc import Iterator

from fleet.check.findings import Finding
from fleet.errors import FleetError
from fleet.git.objects import confusable_pairs, describe_difference, describe_pair
from fleet.service.service import Service
from fleet.service.waivers import WAIVERS_FILE
from fleet.template.answers import ANSWERS_FILE


def check_names(service: Service) -> Iterator[Finding]:
    """Report each pair of such paths. Raises FleetError for a pair with a file of the platform."""
    refuse_unsafe_names(service)
    for first, second in confusable_pairs(service.tree):
        reason = f"this path and {first} {describe_difference(first, second)}, and not every system can hold both"
        yield Finding("path-case", second, reason, "rename or remove one of them")


def refuse_unsafe_names(service: Service) -> None:
    """Refuse a pair in which one file could take the place of a file that the platform owns. Raises FleetError."""
    for pair in confusable_pairs(service.tree):
        if any(_is_platform(service, name) for name in pair):
            raise FleetError(f"{service.root} has {describe_pair(pair)}. The platform owns one of them")


def _is_platform(service: Service, name: str) -> bool:
    """Return whether the platform owns or reads a file of this name, or a file in a folder of this name."""
    paths = [*service.expected.platform, ANSWERS_FILE, WAIVERS_FILE]
    return any(path == name or path.startswith(f"{name}/") for path in paths)
