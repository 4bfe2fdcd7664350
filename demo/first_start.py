"""Do the slow parts of the first `make dev` of a service: compile the modules that it imports, and make its database cluster.

The service's Python runs this file, with the chassis of the template.
"""

import sys
from importlib import import_module
from pathlib import Path

from chassis.dev import embedded

IMPORTED = (
    "chassis.dev.server",
    "chassis.dev.issuer",
    "chassis.brokers.nats.broker",
    "chassis.client",
    "chassis.telemetry.otlp",
    "requests",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.websockets.auto",
    "uvicorn.supervisors",
)

if __name__ == "__main__":
    for module in IMPORTED:
        import_module(module)
    with embedded.postgres(Path(sys.argv[1]), durable=True):
        pass
