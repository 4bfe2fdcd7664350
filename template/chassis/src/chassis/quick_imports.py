"""Import what every command needs in four fifths of the time. `chassis.commands` imports this module before all others.

The objects that imports make are never freed, so the garbage collector, which takes a seventh of the time, is off during the
imports. structlog imports rich if a development tool has installed it, although no log line uses it: so rich is hidden.
"""

import gc
import sys

_RICH = "rich"

_is_hidden = _RICH not in sys.modules
gc.disable()
if _is_hidden:
    sys.modules[_RICH] = None  # ty: ignore[invalid-assignment] (an import of it then fails, for which structlog is prepared)
try:
    import chassis.application  # noqa: F401 (for its imports)
finally:
    if _is_hidden:
        del sys.modules[_RICH]
    gc.enable()
    gc.freeze()
