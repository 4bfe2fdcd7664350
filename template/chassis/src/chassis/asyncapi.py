"""The AsyncAPI 3 document of a service: every message that it sends or takes."""

from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from chassis.schemas import BodySchema, Described, described
from chassis.service import Service

VERSION = "3.0.0"
"""3.1 adds nothing that we use, and fewer tools read it."""
CONTENT_TYPE = "application/json"

HEADERS = {
    "type": "object",
    "description": "On every broker, as text. On Kafka the record's key is the key, and on NATS Nats-Msg-Id is the id.",
    "required": ["id", "type", "key"],
    "properties": {
        "id": {"type": "string", "description": "The same in every copy: who has seen it does nothing more."},
        "type": {"type": "string", "description": "The name of the message."},
        "key": {"type": "string", "description": "Events of one key come in order; a job is alone with its key."},
        "traceparent": {"type": "string", "description": "The trace it belongs to (W3C Trace Context)."},
        "tracestate": {"type": "string"},
        "content-type": {"const": CONTENT_TYPE},
    },
}


def document(service: Service) -> dict[str, Any]:
    """The same for the same code. It names no server: where the broker is differs from place to place."""
    messages = described(service.messages)
    payloads, schemas = _schemas(messages)
    return {
        "asyncapi": VERSION,
        "info": {"title": service.name, "version": service.api_version, "description": service.description},
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            one.name: {"address": one.name, "messages": {one.name: _ref("components", "messages", one.name)}}
            for one in messages
        },
        "operations": {
            f"{action}.{one.name}": {
                "action": action,
                "channel": _ref("channels", one.name),
                "messages": [_ref("channels", one.name, "messages", one.name)],
            }
            for one in messages
            for action in _actions(one)
        },
        "components": {
            "messages": {
                one.name: {
                    "name": one.name,
                    "title": one.contract.__name__,
                    "tags": [{"name": str(one.kind)}],
                    "contentType": CONTENT_TYPE,
                    "headers": _ref("components", "schemas", "headers"),
                    "payload": payload,
                }
                for one, payload in zip(messages, payloads, strict=True)
            },
            "schemas": {**schemas, "headers": HEADERS},
        },
    }


def _schemas(messages: Sequence[Described]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A reference for each message's body, and what the references name."""
    wanted = list(dict.fromkeys((one.contract, one.mode) for one in messages))
    references, document = models_json_schema(
        wanted, ref_template="#/components/schemas/{model}", schema_generator=BodySchema
    )
    return [references[one.contract, one.mode] for one in messages], document.get("$defs", {})


def _actions(message: Described) -> list[str]:
    return [action for action, done in (("send", message.sent), ("receive", message.taken)) if done]


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}
