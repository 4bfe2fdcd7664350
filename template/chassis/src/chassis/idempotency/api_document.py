"""Idempotency keys in the API document."""

from typing import Any

from chassis.call_headers import IDEMPOTENCY_KEY
from chassis.problems import openapi_response

CHARACTERS = r"[!#-\[\]-~]"

_PARAMETER = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "description": "A key of the caller's own for this request, such as a UUID. A request that is sent again with its key has no "
    "second effect, and gets the first answer again.",
    "schema": {"type": "string", "pattern": f'^({CHARACTERS}{{1,255}}|"{CHARACTERS}{{1,255}}")$'},
}
_REPLAYED = {
    "description": "`true` if this is the stored answer to an earlier request with the same Idempotency-Key.",
    "required": False,
    "schema": {"type": "string", "enum": ["true"]},
}
_RETRY_AFTER = {
    "description": "Send a request whose key is in use again after this number of seconds.",
    "required": False,
    "schema": {"type": "integer", "minimum": 1},
}
_CODES = {
    400: ["malformed_request", "idempotency_key_invalid"],
    409: ["idempotency_key_in_use", "answer_not_kept"],
    422: ["invalid_request", "idempotency_key_reused"],
}
"""The codes that an answer of each status can have: the chassis' own code, if it has one, and the codes of this module."""


def describe(operation: dict[str, Any]) -> None:
    """Add the header, and the answers that only a request with the header gets, to one operation."""
    operation["parameters"] = [*operation.get("parameters", []), _PARAMETER]
    responses = operation["responses"]
    if responses.get("422", {}).get("description") == "Validation Error":  # FastAPI describes a body that we never send
        del responses["422"]
    for status, codes in _CODES.items():
        known = responses.get(str(status))
        added = ", ".join(f"`{code}`" for code in (codes[-1:] if known and status != 409 else codes))
        responses[str(status)] = openapi_response(status, added) if known is None else _with(known, added)
    responses["409"].setdefault("headers", {})["Retry-After"] = _RETRY_AFTER
    for status, response in responses.items():
        if status.startswith("2"):
            response.setdefault("headers", {})["Idempotent-Replayed"] = _REPLAYED


def _with(response: dict[str, Any], codes: str) -> dict[str, Any]:
    return {**response, "description": f"{response['description'].rstrip('.')}, {codes}."}
