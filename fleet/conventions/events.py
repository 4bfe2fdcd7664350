"""What the service says and hears over the broker: specs/asyncapi.json and specs/messages/, by `make specs`."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.schemas import compatibility
from fleet.service import asyncapi
from fleet.service.asyncapi import MESSAGES, SPEC
from fleet.service.service import Service

_WORDS = "[a-z][a-z0-9]*(-[a-z0-9]+)*"
NAME = re.compile(rf"(?P<service>{_WORDS})\.{_WORDS}\.v[1-9][0-9]*")


class EventDocument(Convention):
    """Who publishes and who consumes what is known from these documents alone, across all services."""

    id = "event-document"
    remedy = "`make specs`, and commit specs/"

    def check(self, service: Service) -> Iterator[Problem]:
        messages = asyncapi.read(service)
        if messages is None:
            yield Problem(SPEC, "the code sends or takes messages, and no document says which")
            return
        version = str((service.json(SPEC) or {"asyncapi": "3.0.0"}).get("asyncapi"))
        if not version.startswith("3."):
            yield Problem(SPEC, f"it is of AsyncAPI {version}, and the chassis writes 3")
        for message in messages:
            if not message.sent and not message.taken:
                yield Problem(SPEC, f"{message.name} is neither sent nor received", message.line)


class EventNames(Convention):
    """The name says who owns a message and which version it is, and two services never use one name for two things."""

    id = "event-names"
    remedy = "<service>.<name-of-the-message>.v<N>, as the chassis makes it of the contract's class"

    def check(self, service: Service) -> Iterator[Problem]:
        for message in asyncapi.read(service) or []:
            named = NAME.fullmatch(message.name)
            if named is None:
                yield Problem(SPEC, f"{message.name} is not <service>.<name>.v<N> in kebab-case", message.line)
            elif message.ours and named["service"] != service.name:
                yield Problem(SPEC, f"{message.name} is ours, and bears the name of another service", message.line)


class EventSchemas(Convention):
    """Consumers test against the published schema, and without one they learn of a change from parked messages."""

    id = "event-schemas"
    remedy = "`make specs`, and commit specs/"

    def check(self, service: Service) -> Iterator[Problem]:
        messages = asyncapi.read(service)
        if messages is None:
            return
        ours = {message.name: message for message in messages if message.ours}
        for name, message in ours.items():
            if message.published is None:
                yield Problem(asyncapi.path_of(name), f"there is no schema of {name}, which others read")
                continue
            for key, wanted in (("$id", f"urn:message:{name}"), ("x-kind", message.kind)):
                if message.published.get(key) != wanted:
                    yield Problem(asyncapi.path_of(name), f"its {key} is not {wanted}")
        for path in service.files(f"{MESSAGES}*.json"):
            if PurePosixPath(path).stem not in ours:
                yield Problem(path, "it describes a message that this service does not own")


class EventCompatible(Convention):
    """Messages outlive the code that wrote them, in brokers, inboxes and the services of others."""

    id = "event-compatible"
    remedy = "within a version only optional fields may be added: put it back, and publish the next version beside it"

    def check(self, service: Service) -> Iterator[Problem]:
        messages = asyncapi.read(service)
        if messages is None or service.base is None:
            return
        unpublished = {message.name for message in messages if message.published is None}  # which event-schemas tells
        paths = [path for path in service.base.files(f"{MESSAGES}*.json") if _name(path) not in unpublished]
        known = {_name(path): service.base.json(path) for path in paths}
        ours = [message for message in messages if message.ours and message.published is not None]
        try:
            found = compatibility.problems(known, ours, asyncapi.retired(service) | asyncapi.retired(service.base))
        except (AttributeError, KeyError, TypeError) as error:
            raise FleetError(f"{MESSAGES} has what is no schema: {type(error).__name__} {error}") from None
        for problem in found:
            name, _, _ = problem.partition(" ")
            what, *changes = problem.splitlines()
            yield Problem(asyncapi.path_of(name), " ".join([what, *(change.strip() for change in changes)]))


def _name(path: str) -> str:
    return PurePosixPath(path).stem
