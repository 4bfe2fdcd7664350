"""The protocol of `make dev`, whose server restarts with each saved file."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """Uvicorn's protocol. At a restart it cuts answers that have started, because a stream might never end."""

    def shutdown(self) -> None:
        if self.cycle is not None and self.cycle.response_started:
            self.transport.close()
        else:
            super().shutdown()
