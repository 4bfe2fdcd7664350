"""The tiny service with messages, as a process: `python -m tests.chassis.tiny_process serve | work`."""

import dataclasses
import sys

from chassis.application import application, worker
from chassis.settings import Settings, read
from chassis.web.server import serve

from tests.chassis.tiny.main import SERVICE
from tests.chassis.tiny_messages import MESSAGES

if __name__ == "__main__":
    make = {"serve": application, "work": worker}[sys.argv[1]]
    app = make(dataclasses.replace(SERVICE, messages=MESSAGES), read(Settings))
    raise SystemExit(0 if serve(app, drain=sys.argv[1] == "serve") else 1)
