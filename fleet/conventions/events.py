"""Messages, checked in specs/asyncapi.json and specs/messages/, which `make specs` writes."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.schemas import compatibility
from fleet.service import asyncapi
from fleet.service.asyncapi import MESSAGES, SPEC
from fleet.service.service import Service

# The words of a name. In the name of a job, the queue follows two hyphens.
_WORDS = "[a-z][a-z0-9]*(-[a-z0-9]+)*"
NAME = re.compile(rf"(?P<service>{_WORDS})(--{_WORDS})?\.{_WORDS}\.v[1-9][0-9]*")


class EventDocument(Convention):
    """Across services, only these documents show who publishes and who consumes a message."""

    id = "event-document"
    remedy = "`make specs`, and commit specs/"

    def check(self, service: Service) -> Iterator[Problem]:
        messages = asyncapi.read(service)
        if messages is None:
            yield Problem(SPEC, "the code sends or receives messages, and the document is missing")
            return
        version = str((service.json(SPEC) or {"asyncapi": "3.0.0"}).get("asyncapi"))
        if not version.startswith("3."):
            yield Problem(SPEC, f"the document has AsyncAPI version {version}, and the chassis writes version 3")
        for message in messages:
            if not message.sent and not message.received:
                yield Problem(SPEC, f"{message.name} is neither sent nor received", message.line)


class EventNames(Convention):
    """The name shows the owner and the version of a message, so that two services never use one name for two messages."""

    id = "event-names"
    remedy = (
        "name the contract's class after the message: the chassis makes <service>.<name-of-the-message>.v<N> from it"
    )

    def check(self, service: Service) -> Iterator[Problem]:
        for message in asyncapi.read(service) or []:
            named = NAME.fullmatch(message.name)
            if named is None:
                yield Problem(SPEC, f"{message.name} is not <service>.<name>.v<N> in kebab-case", message.line)
            elif message.ours and named["service"] != service.name:
                yield Problem(
                    SPEC, f"this service owns {message.name}, whose name begins with another service", message.line
                )


class EventSchemas(Convention):
    """Without a published schema to test against, consumers notice a change only when messages are parked."""

    id = "event-schemas"
    remedy = "`make specs`, and commit specs/"

    def check(self, service: Service) -> Iterator[Problem]:
        messages = asyncapi.read(service)
        if messages is None:
            return
        ours = {message.name: message for message in messages if message.ours}
        for name, message in ours.items():
            if message.published is None:
                yield Problem(asyncapi.path_of(name), f"there is no schema of {name}, which other services read")
                continue
            for key, wanted in (("$id", f"urn:message:{name}"), ("x-kind", message.kind)):
                if message.published.get(key) != wanted:
                    yield Problem(asyncapi.path_of(name), f"the {key} of the schema is not {wanted}")
        for path in service.files(f"{MESSAGES}*.json"):
            if PurePosixPath(path).stem not in ours:
                yield Problem(path, "the schema is of a message that this service does not own")


class EventCompatible(Convention):
    """Messages in brokers, inboxes and other services outlive the code that wrote them."""

    id = "event-compatible"
    remedy = "within a version, add only optional fields: undo other changes, and publish the next version in addition"

    def check(self, service: Service) -> Iterator[Problem]:
        messages = asyncapi.read(service)
        if messages is None or service.base is None:
            return
        unpublished = {message.name for message in messages if message.published is None}  # reported by event-schemas
        paths = [path for path in service.base.files(f"{MESSAGES}*.json") if _name(path) not in unpublished]
        known = {_name(path): service.base.json(path) for path in paths}
        ours = [message for message in messages if message.ours and message.published is not None]
        try:
            found = compatibility.problems(known, ours, asyncapi.retired(service) | asyncapi.retired(service.base))
        except (AttributeError, KeyError, TypeError) as error:
            raise FleetError(f"{MESSAGES} has a file that is not a schema: {type(error).__name__} {error}") from None
        for problem in found:
            name, _, _ = problem.partition(" ")
            what, *changes = problem.splitlines()
            yield Problem(asyncapi.path_of(name), " ".join([what, *(change.strip() for change in changes)]))


def _name(path: str) -> str:
    return PurePosixPath(path).stem
