"""Import what every command needs in four fifths of the time. `chassis.commands` imports this module before all others.

The objects that imports make stay, so the garbage collector would find nothing in them, and take a seventh of the time. structlog
imports rich where a development tool has brought it, although no log line uses it.
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
