"""Failures as RFC 9457 problem documents. The only module that turns errors into HTTP statuses."""

import json
import re
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException

from chassis.database import DatabaseUnavailable
from chassis.database.outages import OutageLog
from chassis.discovery import has_module
from chassis.errors import Conflict, DomainError, Forbidden, NotFound, PreconditionFailed
from chassis.telemetry.setup import current_trace_id

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

STATUS: dict[type[DomainError], int] = {NotFound: 404, Conflict: 409, Forbidden: 403, PreconditionFailed: 412}

CODES = {
    400: "malformed_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "route_not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    412: "version_mismatch",
    413: "request_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    428: "if_match_required",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}
"""The stable codes of failures without a more precise code; `code_of` makes the codes of all other statuses."""

UNAVAILABLE = "`overloaded`, `timed_out`, `database_unavailable`"
if has_module("chassis.neighbours.failures"):
    UNAVAILABLE += ", `neighbour_unavailable`"
"""The codes of a 503, as the API document shows them."""

PHRASES = {status.value: status.phrase for status in HTTPStatus}
# The names of RFC 9110: the names in Python's standard library changed in 3.13.
TITLES = PHRASES | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}

IF_MATCH_ADVICE = 'send If-Match with the ETag of the copy you read, or "*" to change whatever is there'
IF_MATCH_RULE = (
    'must be one ETag in its quotes, as in "3", which is that of the copy you read; or * to change whatever is there'
)

MAX_REPORTED = 20
"""The number of broken rules that an answer lists: a request can break thousands."""

LONGEST_POINTER = 200
"""The longest pointer in an answer, in characters: the caller may name an unknown field at any length."""


class InvalidPart(BaseModel):
    """One part of the request that breaks a rule."""

    pointer: str = Field(
        description="The place of the part: a JSON pointer into the body, or the name of the parameter.",
        examples=["#/currency"],
    )
    detail: str = Field(description="The broken rule, in words for a person.", examples=["Field required"])


class Problem(BaseModel):
    """Why a request failed (RFC 9457). Branch on `code`, show `detail`, quote `trace_id` when asking for help."""

    type: str = Field(
        description="The kind of the problem, as a URI relative to this server.",
        examples=["/problems/invalid_request"],
        json_schema_extra={"format": "uri-reference"},
    )
    title: str = Field(description="The name of the status.", examples=["Unprocessable Content"])
    status: int = Field(ge=400, le=599, description="The HTTP status.", examples=[422])
    code: str = Field(description="The stable code that a client branches on.", examples=["invalid_request"])
    detail: str | SkipJsonSchema[None] = Field(
        None,
        description="The failure of this request, in words for a person.",
        examples=["#/currency: Field required"],
    )
    errors: list[InvalidPart] | SkipJsonSchema[None] = Field(
        None, description=f"The parts of the request that break a rule, at most {MAX_REPORTED}."
    )
    trace_id: str | SkipJsonSchema[None] = Field(
        None,
        description="The id by which the service's traces show this request.",
        examples=["4bf92f3577b34da6a3ce929d0e0e4736"],
    )


def code_of(status: int) -> str:
    """Return the stable code of a status: from CODES, or its name in RFC 9110 (410: `gone`)."""
    return CODES.get(status) or re.sub(r"\W+", "_", TITLES.get(status, "http error").lower())


def status_of(error: type[DomainError]) -> int:
    """Return the HTTP status of an error's family. Raises TypeError for an error outside every family."""
    for family, status in STATUS.items():
        if issubclass(error, family):
            return status
    raise TypeError(f"{error.__name__} belongs to no family of errors: derive it from a family in chassis.errors")


def document(
    status: int,
    *,
    code: str | None = None,
    detail: str | None = None,
    errors: list[InvalidPart] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Make the response for a problem. By default the code is that of the status."""
    code = code or code_of(status)
    problem = Problem(
        type=f"/problems/{code}",
        title=TITLES.get(status, "Error"),
        status=status,
        code=code,
        detail=detail,
        errors=errors,
        trace_id=current_trace_id(),
    )
    response = JSONResponse(problem.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def unavailable(detail: str, *, code: str = "unavailable") -> JSONResponse:
    """Make a response with status 503, which asks the client to send the request again."""
    return document(503, code=code, detail=detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def problems(*errors: type[DomainError]) -> dict[int | str, dict[str, Any]]:
    """Make the `responses` of a route that may raise these errors: each status with its codes."""
    codes: dict[int, list[str]] = {}
    for error in errors:
        codes.setdefault(status_of(error), []).append(f"`{error.code}`")
    return {status: openapi_response(status, ", ".join(found)) for status, found in codes.items()}


def openapi_response(status: int, codes: str | None = None) -> dict[str, Any]:
    """Make the OpenAPI response object for a problem of that status."""
    codes = codes or {503: UNAVAILABLE, 504: "`deadline_exceeded`, `neighbour_timeout`"}.get(status)
    response: dict[str, Any] = {
        "description": f"{TITLES[status]}: {codes or f'`{code_of(status)}`'}.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status == 503:
        seconds = {"type": "integer", "minimum": 1}
        response["headers"] = {
            "Retry-After": {
                "description": "Send the request again after this number of seconds.",
                "required": True,
                "schema": seconds,
            }
        }
    return response


def _pointer(location: tuple[int | str, ...]) -> str:
    part, *path = location
    if part != "body":
        where = ".".join(map(str, path)) or str(part)
    else:
        where = "#" + "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return where if len(where) <= LONGEST_POINTER else f"{where[:LONGEST_POINTER]}…"


def _rule(part: dict[str, Any]) -> str:
    # Pydantic's messages for these two show a regular expression and the making of a model, which help no caller.
    if part["loc"] == ("header", "If-Match"):
        return IF_MATCH_RULE
    if part["type"] == "model_attributes_type":
        return "Input should be an object"
    return part["msg"].removeprefix("Value error, ")


async def on_domain_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)
    return document(status_of(type(error)), code=error.code, detail=str(error))


async def on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(part["type"] == "missing" and part["loc"] == ("header", "If-Match") for part in found):
        return document(428, detail=IF_MATCH_ADVICE)
    if isinstance(error.body, bytes):  # FastAPI leaves a body unparsed if its media type is not JSON
        return document(415, detail="send the body as application/json")
    for part in found:
        if part["type"] == "json_invalid":
            reason = part["ctx"]["error"].removesuffix(" at")
            return document(400, detail=f"the body is not JSON: {reason} at character {part['loc'][1]}")
    # The answer never repeats the input, which may be personal, or not representable in JSON.
    parts = [InvalidPart(pointer=_pointer(part["loc"]), detail=_rule(part)) for part in found[:MAX_REPORTED]]
    return document(422, detail="; ".join(f"{part.pointer}: {part.detail}" for part in parts), errors=parts)


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code < 400:  # for example 304, which is not a failure
        return Response(status_code=error.status_code, headers=headers)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed_methods(request)) or headers.get("Allow", "GET")
    detail: Any = error.detail  # FastAPI allows any JSON value
    if not isinstance(detail, str):
        detail = json.dumps(detail, ensure_ascii=False, default=str)
    elif detail == PHRASES.get(error.status_code):
        detail = _about_the_route(request, error.status_code, headers)
    elif detail == "There was an error parsing the body" and error.__cause__ is not None:  # FastAPI's text
        detail = _why_unreadable(error.__cause__) or detail
    return document(error.status_code, detail=detail, headers=headers)


def _about_the_route(request: Request, status: int, headers: dict[str, str]) -> str | None:
    if status == 405:
        return f"this path allows {headers['Allow']}"
    if status == 404 and "endpoint" not in request.scope:  # the router found no route
        return "no route has this path; a slash at the end matters"
    return None


def _why_unreadable(cause: BaseException) -> str | None:
    """Say why a body could not be parsed, without quoting any part of the body."""
    match cause:
        case UnicodeDecodeError():
            return f"the body is not UTF-8 at byte {cause.start}"
        case RecursionError():
            return "the body is nested too deeply"
        case ValueError():  # Python limits the digits of a number
            return "a number in the body has too many digits"
    return None


def _allowed_methods(request: Request) -> list[str]:
    # Starlette names only the methods of the first route with this path, and here each method has a route of its own.
    fitting = (route for route in iter_route_contexts(request.app.routes) if route.methods)
    path = request.scope["path"]
    methods = {method for route in fitting if route.path_regex.match(path) for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


async def on_database_unavailable(request: Request, error: Exception) -> Response:
    request.scope["logged"] = True
    request.app.state.outages.add(error)
    return unavailable("the database is unavailable", code="database_unavailable")


async def on_surprise(_: Request, error: Exception) -> Response:
    """Answer a bug with a bare 500. Telemetry and logs have the exception and its stack; the client gets neither."""
    return document(500)


def install(app: FastAPI) -> None:
    """Make the application answer every failure with a problem document."""
    app.state.outages = OutageLog()
    app.add_exception_handler(DomainError, on_domain_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(DatabaseUnavailable, on_database_unavailable)
    app.add_exception_handler(Exception, on_surprise)
