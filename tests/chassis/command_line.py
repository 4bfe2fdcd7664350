"""A person at the command line of the tiny service, which has the messages of the tests."""

import dataclasses

import pytest
from chassis.commands import main
from chassis.service import Service

from tests.chassis.tiny_messages import MESSAGES


class CommandDesk:
    """Call one command. Returns the exit status, standard output and standard error."""

    command: str

    def __init__(self, service: Service, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.service = dataclasses.replace(service, messages=MESSAGES)
        self.url = url
        self.capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = main(self.service, [self.command, *arguments])
        shown = self.capsys.readouterr()
        return status, shown.out, shown.err
