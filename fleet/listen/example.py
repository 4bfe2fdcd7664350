"""Make an agreed body of a message: the values of the sender's example where these fit, and samples elsewhere."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from fleet.listen.contract import Body, is_money

ABSENT: Any = object()
SAMPLES = {
    "uuid": "0190b5a8-7c5e-7b3a-9d43-6f0e8c1a2b4d",
    "date": "2027-01-31",
    "date-time": "2027-01-31T12:00:00Z",
    "string": "text",
    "integer": 42,
    "number": 1.5,
    "boolean": True,
    "null": None,
}
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}


def example(node: Any, body: Body, given: Any = ABSENT) -> Any:
    """Return a value of the schema, which has no references in a circle."""
    schema = body.resolved(node)
    if parts := [one for one in schema.get("allOf", ()) if "type" not in schema]:
        return example(parts[0], body, given)
    if choices := _choices(schema):
        fitting = [one for one in choices if given is not ABSENT and _fits(given, body.resolved(one))]
        others = [one for one in choices if body.resolved(one).get("type") != "null"] or choices
        return example((fitting or others)[0], body, given if fitting else ABSENT)
    if values := [schema["const"]] if "const" in schema else schema.get("enum"):
        return given if given in values else values[0]
    kind = schema.get("type", "object" if schema.get("properties") else None)
    if kind == "object" and is_money(schema):
        return given if given is not ABSENT and _fits(given, schema) else {"amount": 1250, "currency": "EUR"}
    if kind == "object" and (properties := schema.get("properties")):
        inner = given if isinstance(given, dict) else {}
        return {name: example(one, body, inner.get(name, ABSENT)) for name, one in properties.items()}
    if kind == "array":
        inner = given if isinstance(given, list) and given else [ABSENT]
        return [example(schema.get("items", {}), body, one) for one in inner]
    if given is not ABSENT and _fits(given, schema):
        return given
    if kind == "object":
        return {"key": example(schema.get("additionalProperties") or {}, body)}
    return (
        SAMPLES.get(schema.get("format", ""), SAMPLES.get(kind or "string"))
        if kind in (None, "string")
        else SAMPLES[kind]
    )


def _choices(schema: dict[str, Any]) -> list[Any]:
    if isinstance(kinds := schema.get("type"), list):
        return [{**schema, "type": kind} for kind in kinds]
    return schema.get("anyOf") or schema.get("oneOf") or []


def _fits(given: Any, schema: dict[str, Any]) -> bool:
    """Return whether a contract reads and writes the value as it is."""
    kind = schema.get("type", "object" if "properties" in schema else None)
    if "enum" in schema or "const" in schema:
        return given in schema.get("enum", [schema.get("const")])
    if kind is None or kind == "null":
        return kind is None or given is None
    if not isinstance(given, TYPES[kind]) or (isinstance(given, bool) and kind != "boolean"):
        return False
    if kind == "object" and is_money(schema):
        amount, currency = given.get("amount"), given.get("currency")
        return given.keys() == {"amount", "currency"} and type(amount) is int and isinstance(currency, str)
    return kind != "string" or _is_canonical(given, schema.get("format", ""))


def _is_canonical(text: str, form: str) -> bool:
    """Return whether Pydantic writes the text of such a format as it has read it."""
    try:
        match form:
            case "uuid":
                return str(UUID(text)) == text
            case "date":
                return date.fromisoformat(text).isoformat() == text
            case "date-time":
                return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" == text
    except (ValueError, OverflowError):
        return False
    return "\0" not in text
