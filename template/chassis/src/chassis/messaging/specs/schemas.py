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
    """A message that the service sends, takes, or both.

    It is `ours` if others hold us to its schema: the publisher owns an event, and who does a job owns that.
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
        """What we say is described as it is written; what we hear, as it is read. A job to ourselves is heard."""
        by_us = self.sent and not (self.kind is Kind.JOB and self.taken)
        return "serialization" if by_us else "validation"

    def schema(self) -> dict[str, Any]:
        """The JSON Schema document of its body. `x-kind` is ours; validators skip what they do not know."""
        body = self.contract.model_json_schema(mode=self.mode, schema_generator=BodySchema)
        identity = {"$schema": DIALECT, "$id": f"urn:message:{self.name}", "title": self.contract.__name__}
        return {**identity, "x-kind": str(self.kind), **{key: body[key] for key in body if key != "title"}}


class BodySchema(GenerateJsonSchema):
    """Pydantic's, without OpenAPI's `discriminator`: AsyncAPI has another one, and JSON Schema needs none."""

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        described = super().tagged_union_schema(schema)
        described.pop("discriminator", None)
        return described


def described(messages: Messages) -> list[Described]:
    """All messages of the service, by name. Where we are both ends of one, its owner's end has the contract."""
    sent = {route.name: route for routes in messages.routes.values() for route in routes}
    taken = messages.receivers
    found = []
    for name in sorted(sent.keys() | taken.keys()):
        kind = Kind((sent.get(name) or taken[name]).kind)
        owner, other = (sent, taken) if kind is Kind.EVENT else (taken, sent)
        line = owner.get(name) or other[name]
        found.append(Described(kind, name, line.contract, sent=name in sent, taken=name in taken))
    return found
