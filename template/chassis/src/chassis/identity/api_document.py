"""The demands of routes in the API document."""

from typing import Any

from fastapi import FastAPI

from chassis.identity.demands import demands_of
from chassis.problems import UNAVAILABLE, openapi_response

SCHEME = "accessToken"

_CHALLENGE = {
    "WWW-Authenticate": {
        "description": "Why the access token is not accepted (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
    }
}


def describe(app: FastAPI, document: dict[str, Any], everywhere: frozenset[str]) -> None:
    """Add the scheme, and to each operation its scopes and the answers 401 and 403, or the reason why it is public.

    The scheme is a bearer token and not the issuer's address, because the address differs from place to place.
    """
    components = document.setdefault("components", {})
    components.setdefault("securitySchemes", {})[SCHEME] = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token of the organisation's issuer, for the audience of this service.",
    }
    answers = components.setdefault("responses", {})
    answers["Unauthenticated"] = {**openapi_response(401), "headers": _CHALLENGE}
    answers["Unavailable"] = openapi_response(503, f"{UNAVAILABLE}, `issuer_unavailable`")
    answers["InsufficientScope"] = {**openapi_response(403, "`insufficient_scope`"), "headers": _CHALLENGE}
    for route, demand in demands_of(app, everywhere):
        for operation in _operations(document, route):
            if demand.public:
                operation |= {"security": [], "x-public": demand.public}
            else:
                operation["security"] = [{SCHEME: sorted(demand.scopes)}]
                _add_refusals(operation["responses"])


def _add_refusals(responses: dict[str, Any]) -> None:
    responses.setdefault("401", {"$ref": "#/components/responses/Unauthenticated"})
    own = responses.setdefault("403", {"$ref": "#/components/responses/InsufficientScope"})
    if "description" in own:  # the route raises a Forbidden of its own
        own["description"] = f"{own['description'].rstrip('.')}, `insufficient_scope`."


def _operations(document: dict[str, Any], route: Any) -> list[dict[str, Any]]:
    path = document.get("paths", {}).get(getattr(route, "path_format", None), {})
    return [path[method.lower()] for method in route.methods or () if method.lower() in path]
