"""The listening socket of a service, which `fleet up` holds while the processes of the service come and go."""

import socket

from fleet.errors import FleetError
from fleet.up.checkout_state import takes_socket
from fleet.up.ports import is_free
from fleet.up.product import Checkout
from fleet.up.refusal import Refusal


class HeldSocket:
    """The listening socket of one service. Callers wait in the socket's queue, or get 503 while the service does not run."""

    def __init__(self, checkout: Checkout, port: int) -> None:
        self._checkout, self._port = checkout, port
        self._listener: socket.socket | None = None
        self._refusal: Refusal | None = None
        self.note = ""
        """Why calls fail while the service restarts; empty if they do not."""

    def open(self) -> None:
        """Listen, unless the chassis cannot take a socket: then only the service itself can listen. Raises FleetError."""
        takes = takes_socket(self._checkout.folder)
        self.note = "its chassis takes no socket, so calls fail while it restarts" if takes is False else ""
        if takes is False:
            self.close()
            if not is_free(self._port):
                raise FleetError(
                    f"cannot listen on port {self._port}, which another program has taken, and which `fleet up` holds only for a "
                    "newer chassis: end that program and save a file, or run `make update` in the service"
                )
        elif self._listener is None:
            try:
                self._listener = socket.create_server(("127.0.0.1", self._port))
            except OSError as error:
                raise FleetError(f"cannot listen on port {self._port}: {error.strerror}") from None
            self._refusal = Refusal(self._listener, lambda: f"{self._checkout.name} does not run under `fleet up`")

    async def refuse(self) -> None:
        """Answer 503 at once, until the socket is passed on."""
        if self._refusal:
            await self._refusal.open()

    def pass_on(self) -> list[int]:
        """Accept nothing any more. Return the descriptor for the service; none if the service listens itself."""
        if self._refusal:
            self._refusal.close()
        return [self._listener.fileno()] if self._listener else []

    def close(self) -> None:
        if self._listener and self._refusal:
            self._refusal.close()
            self._listener.close()
        self._listener = self._refusal = None
