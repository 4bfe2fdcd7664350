"""The protocol of `make dev`, whose server restarts with each saved file."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """Uvicorn's protocol, which at a restart cuts the answers that have begun: a stream might never end."""

    def shutdown(self) -> None:
        if self.cycle is not None and self.cycle.response_started:
            self.transport.close()
        else:
            super().shutdown()
