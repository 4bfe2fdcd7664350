"""Import what every command needs in four fifths of the time. `chassis.commands` imports this module before all others.

The objects that imports make are never freed, so the garbage collector, which takes a seventh of the time, is off during the
imports. structlog imports rich if a development tool has installed it, although no log line uses it: so rich is hidden.
"""

import gc
import sys

_RICH = "rich"

gc.disable()
try:
    # Only structlog may miss rich: another package, such as a plugin of Pydantic, may be unable to work without it.
    if _RICH not in sys.modules:
        sys.modules[_RICH] = None  # ty: ignore[invalid-assignment] (an import of it then fails)
        try:
            import structlog  # noqa: F401
        finally:
            del sys.modules[_RICH]
    import chassis.application  # noqa: F401 (for its imports)
finally:
    gc.enable()
    gc.freeze()
