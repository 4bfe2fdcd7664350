"""The HTTP protocol of `make dev`, whose server restarts after each saved file. The server imports this module first."""

from typing import Any

from chassis.dev import log_copy
from chassis.web import connections
from chassis.web.shared_limits import SharedLimits

SHARED_LIMITS = SharedLimits(max_connections=1000)

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
