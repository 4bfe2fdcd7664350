"""The AsyncAPI 3 document of a service: every message that it sends or consumes."""

import inspect
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from chassis.brokers import REPUBLISHED, SAGA
from chassis.messaging.specs.schemas import BodySchema, Described, described
from chassis.service import Service

VERSION = "3.1.0"
PORTS = {"nats": 4222, "kafka": 9092, "amqp": 5672}
KINDS = {
    "event": "Something that has happened. Its publisher owns it, and anybody may listen.",
    "job": "Something to be done. The service that does the job owns it, and one worker of that service does it.",
}
CONTENT_TYPE = "application/json"

HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "On every broker, as text. On Kafka the record's key is the key, and on NATS Nats-Msg-Id is the id.",
    "required": ["id", "type", "key"],
    "properties": {
        "id": {"type": "string", "description": "The same in every copy: who has seen it does nothing more."},
        "type": {"type": "string", "description": "The name of the message."},
        "key": {"type": "string", "description": "Events of one key come in order; a job is alone with its key."},
        "traceparent": {"type": "string", "description": "The trace it belongs to (W3C Trace Context)."},
        "tracestate": {"type": "string"},
        "subject": {
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "description": "The caller of the request that caused it, as the sender claims. It proves nothing.",
        },
        "content-type": {"const": CONTENT_TYPE},
    },
}


SAGA_IDS = {
    "type": "string",
    "description": "The ids of the sagas that the message belongs to. A message that answers it has the same header.",
}
STATED = {"type": "string", "description": "On an event that tells the state once more: the id of the run."}


def document(service: Service) -> dict[str, Any]:
    """Return the AsyncAPI document of a service. Equal code makes an equal document."""
    messages = described(service.messages)
    payloads, schemas = _schemas(messages)
    return {
        "asyncapi": VERSION,
        "info": _info(service),
        **({"servers": {"broker": _server(service.broker)}} if service.broker else {}),
        "defaultContentType": CONTENT_TYPE,
        **({"x-sagas": sagas.versions} if (sagas := service.messages.sagas) is not None else {}),
        "channels": {
            one.name: {"address": one.name, "messages": {one.name: _ref("components", "messages", one.name)}}
            for one in messages
        },
        "operations": {
            f"{action}.{one.name}": {
                "action": action,
                "channel": _ref("channels", one.name),
                "description": _described(service, one, action),
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
                    "tags": [_ref("components", "tags", str(one.kind))],
                    "contentType": CONTENT_TYPE,
                    "headers": _ref("components", "schemas", "headers"),
                    "payload": payload,
                }
                for one, payload in zip(messages, payloads, strict=True)
            },
            "tags": {name: {"name": name, "description": text} for name, text in KINDS.items()},
            "schemas": {**schemas, "headers": _headers(service)},
        },
    }


def _headers(service: Service) -> dict[str, Any]:
    more = {REPUBLISHED: STATED} if service.messages.states else {}
    if service.messages.sagas is not None:
        more[SAGA] = SAGA_IDS
    return {**HEADERS, "properties": {**HEADERS["properties"], **more}}


def _info(service: Service) -> dict[str, Any]:
    return {
        "title": service.name,
        "version": service.api_version,
        "description": service.description,
        **({"contact": {"name": service.owner}} if service.owner else {}),
        "license": {"name": service.license.removeprefix("LicenseRef-")},
        "tags": [_ref("components", "tags", name) for name in KINDS],
    }


def _server(broker: str) -> dict[str, Any]:
    """Return the broker, with a variable host: BROKER_URL of each environment names the host."""
    protocol = "amqp" if broker == "rabbitmq" else broker
    host = {"description": "The host and port of BROKER_URL.", "default": f"localhost:{PORTS[protocol]}"}
    return {"host": "{host}", "protocol": protocol, "description": "The broker.", "variables": {"host": host}}


def _described(service: Service, message: Described, action: str) -> str:
    """Return the docstring of the handler for a received message, and of the contract for a sent message."""
    handler = service.messages.receivers[message.name].handler if action == "receive" else message.contract
    verb = {"send": {"event": "publishes", "job": "asks for"}, "receive": {"event": "listens to", "job": "does"}}
    return inspect.cleandoc(
        handler.__doc__ or f"{service.name} {verb[action][message.kind]} {message.contract.__name__}."
    )


def _schemas(messages: Sequence[Described]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a reference to the body of each message, and the schemas that the references name."""
    wanted = list(dict.fromkeys((one.contract, one.mode) for one in messages))
    references, document = models_json_schema(
        wanted, ref_template="#/components/schemas/{model}", schema_generator=BodySchema
    )
    return [references[one.contract, one.mode] for one in messages], document.get("$defs", {})


def _actions(message: Described) -> list[str]:
    return [action for action, done in (("send", message.sent), ("receive", message.taken)) if done]


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}
