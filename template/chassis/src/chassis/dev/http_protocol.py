"""The protocol of `make dev`, whose server restarts with each saved file."""

from typing import Any

from chassis.web import connections

ROOM = connections.Room(max_connections=1000)


class Protocol(connections.Protocol):
    """The protocol of production. At a restart it cuts answers that have started, because a stream might never end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, room=ROOM, **options)

    def shutdown(self) -> None:
        if self.cycle is not None and self.cycle.response_started:
            self.transport.close()
        else:
            super().shutdown()
