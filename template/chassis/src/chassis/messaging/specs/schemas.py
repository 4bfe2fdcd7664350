"""Every message of a service, and the JSON schema of its body."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from chassis.brokers import Kind
from chassis.messages import Contract, Messages

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Described:
    """A message that the service sends, consumes, or both.

    It is `ours` if this service owns its schema: the publisher owns an event, and the service that processes a job owns the job.
    """

    kind: Kind
    name: str
    contract: type[Contract]
    sent: bool
    taken: bool

    @property
    def ours(self) -> bool:
        return self.sent if self.kind is Kind.EVENT else self.taken

    @property
    def mode(self) -> Literal["serialization", "validation"]:
        """`serialization` for a message that the service sends, `validation` for a message that it consumes, also from itself."""
        by_us = self.sent and not (self.kind is Kind.JOB and self.taken)
        return "serialization" if by_us else "validation"

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema document of the body. `x-kind` is an extension, which validators ignore."""
        body = self.contract.model_json_schema(mode=self.mode, schema_generator=BodySchema)
        identity = {"$schema": DIALECT, "$id": f"urn:message:{self.name}", "title": self.contract.__name__}
        return {**identity, "x-kind": str(self.kind), **{key: body[key] for key in body if key != "title"}}


class BodySchema(GenerateJsonSchema):
    """Return Pydantic's schema without OpenAPI's `discriminator`, which AsyncAPI defines differently."""

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        described = super().tagged_union_schema(schema)
        described.pop("discriminator", None)
        return described


def described(messages: Messages) -> list[Described]:
    """Return all messages of the service, by name. For a message to the service itself, take the owner's contract."""
    sent = {route.name: route for routes in messages.routes.values() for route in routes}
    taken = messages.receivers
    found = []
    for name in sorted(sent.keys() | taken.keys()):
        kind = Kind((sent.get(name) or taken[name]).kind)
        owner, other = (sent, taken) if kind is Kind.EVENT else (taken, sent)
        line = owner.get(name) or other[name]
        found.append(Described(kind, name, line.contract, sent=name in sent, taken=name in taken))
    return found
