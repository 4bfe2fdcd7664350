"""What every service of the platform shares at run time. A service's code may use these modules:

errors       the families of expected failures
money        Money, an amount and its currency
service      Service, what the composition root hands over
settings     Settings, read once from the environment
database     Statement, UnitOfWork, Database: compiled SQL on a pool, explicit transactions
fields       types for request and response models
http         transaction, reader, IfMatch, Cursor: what a route works with
messages     Contract, Event, Job, OnEvent, OnJob: what the service says and hears
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
    "messages",
    "money",
    "problems",
    "service",
    "settings",
    "testing",
]
