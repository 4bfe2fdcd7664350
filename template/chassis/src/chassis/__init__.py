"""The code that every service of the platform shares at run time. A service may use these modules:

errors       the families of expected failures
money        Money, an amount and its currency
service      Service, the description that the composition root hands over
settings     Settings, read once from the environment: URLs, limits (MAX_BODY_BYTES, …), times
database     Statement, UnitOfWork, Database: compiled SQL on a pool, explicit transactions
fields       types for request and response models
http         transaction, reader, IfMatch, Cursor, sunset, streams_body: the tools of a route
identity     Oidc, scopes, public, caller: access tokens of callers (in a service with the answer `auth: oidc`)
messages     Contract, Event, Job, OnEvent, OnJob: the messages that the service sends and handles
deadline     remaining: the time that is left for a request or message (with `neighbours` in chassis_parts)
idempotency  IdempotencyKeys: a POST that is sent again has no second effect (with `idempotency` in chassis_parts)
neighbours   NeighbourSettings, Fallback: one policy for calls of other services (with `neighbours` in chassis_parts)
listing      Listing, Page, ListCursor: lists with filters and several orders (with `lists` in the answer chassis_parts)
sagas        saga, Run, Abandon, TimedOut, reply: work that spans services (with the answer sagas: postgres)
schedules    Schedule: the times at which the worker enqueues a job by itself (with `schedules` in chassis_parts)
client       service_client: HTTP to another service
problems     failures as RFC 9457 problem documents
application  the HTTP process as a FastAPI application
commands     the command line
testing      pytest fixtures (with `auth: oidc`, the fixture `client` is a chassis.dev.issuer.Client; with `neighbours`, see chassis.neighbours.testing)

Everything else is internal. This module imports no other, so that each process loads only what it uses.
"""

import sys
from importlib.machinery import ModuleSpec

__all__ = [
    "application",
    "client",
    "commands",
    "database",
    "deadline",
    "errors",
    "fields",
    "http",
    "idempotency",
    "identity",
    "listing",
    "messages",
    "money",
    "neighbours",
    "problems",
    "sagas",
    "schedules",
    "service",
    "settings",
    "testing",
]

_COMES_WITH = {
    "chassis.deadline": "`neighbours` in the answer chassis_parts",
    "chassis.dev.issuer": "the answer oidc to the question auth",
    "chassis.dev.shell": "`shell` in the answer chassis_parts",
    "chassis.idempotency": "`idempotency` in the answer chassis_parts",
    "chassis.identity": "the answer oidc to the question auth",
    "chassis.listing": "`lists` in the answer chassis_parts",
    "chassis.messaging": "a messaging_style",
    "chassis.messaging.messages_command": "a messaging_style, and with `overview` in the answer chassis_parts",
    "chassis.messaging.parked_command": "a messaging_style",
    "chassis.messaging.republish_command": "a messaging_style, and with `republish` in the answer chassis_parts",
    "chassis.neighbours": "`neighbours` in the answer chassis_parts",
    "chassis.messaging.sagas_command": "a messaging_style with queues, and with the answer postgres to the question sagas",
    "chassis.sagas": "a messaging_style with queues, and with the answer postgres to the question sagas",
    "chassis.schedules": "a messaging_style, and with `schedules` in the answer chassis_parts",
}


def why_left_out(module: str) -> str:
    """Explain which answer brings a module that the answers of this service leave out."""
    return (
        f"this service has no {module}, which comes with {_COMES_WITH[module]}: change the answer by `fleet update -d`"
    )


class _NotInstalled:
    """A finder of modules that Python asks last, if all other finders have found nothing.

    The finder explains why a module of the chassis is missing. It also finds httpx2 if a team's code imports httpx, which
    former versions of the chassis installed: errors and transports of the two packages are then the same classes.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name in _COMES_WITH:
            raise ModuleNotFoundError(why_left_out(name), name=name)
        if name == "httpx":
            import httpx2

            httpx2.alias_httpx()  # adds finders, and one of them finds `httpx`
            return next(spec for finder in sys.meta_path if (spec := finder.find_spec(name, None)))
        return None


sys.meta_path.append(_NotInstalled)
