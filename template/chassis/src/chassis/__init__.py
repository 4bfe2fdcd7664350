"""The code that every service of the platform shares at run time. A service may use these modules:

errors       the families of expected failures
money        Money, an amount and its currency
service      Service, the description that the composition root hands over
settings     Settings, read once from the environment: URLs, limits (MAX_BODY_BYTES, …), times
database     Statement, Listing, UnitOfWork, Database: compiled SQL on a pool, pages, explicit transactions
fields       types for request and response models
http         transaction, reader, IfMatch, Cursor, ListCursor, sunset, streams_body: the tools of a route
identity     Oidc, scopes, public, caller: access tokens of callers (in a service with the answer `auth: oidc`)
messages     Contract, Event, Job, OnEvent, OnJob: the messages that the service sends and handles
schedules    Schedule: the times at which the worker enqueues a job by itself
client       service_client: HTTP to another service
problems     failures as RFC 9457 problem documents
application  the HTTP process as a FastAPI application
commands     the command line
testing      pytest fixtures

Everything else is internal. This module imports nothing, so that each process loads only what it uses.
"""

__all__ = [
    "application",
    "client",
    "commands",
    "database",
    "errors",
    "fields",
    "http",
    "identity",
    "messages",
    "money",
    "problems",
    "schedules",
    "service",
    "settings",
    "testing",
]
