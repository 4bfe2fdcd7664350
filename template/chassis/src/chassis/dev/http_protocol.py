"""The HTTP protocol of `make dev`, whose server restarts after each saved file. The server imports this module first."""

import os
from typing import Any

from chassis.web import connections
from chassis.web.shared_limits import SharedLimits

SHARED_LIMITS = SharedLimits(max_connections=1000)

if "VIEWER_LOGS_URL" in os.environ:  # set by `make dev` if it runs a viewer
    from chassis.dev.viewer import log_copy

    log_copy.start()  # before the server makes the application, which configures the logs


class Protocol(connections.Protocol):
    """The protocol of production, which cuts uploads and started answers at a restart: a stream might never end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, shared_limits=SHARED_LIMITS, **options)

    def shutdown(self) -> None:
        if self.cycle is not None and (self.cycle.more_body or self.cycle.response_started):
            self.transport.close()
        else:
            super().shutdown()
