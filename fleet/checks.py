"""The checks of `fleet check`, in the order in which their findings are shown."""

from fleet.drift import drift, waivers
from fleet.findings import Check

# Byte-exact comparison with the template; fast, and needs nothing but git.
DRIFT: list[Check] = [drift, waivers]

CHECKS: list[Check] = [*DRIFT]
