"""The families of expected failures. Standard library only, so that domain code may use them.

    DomainError
    ├── NotFound             the thing is not there
    ├── Conflict             not allowed in the current state
    ├── Forbidden            not allowed for this caller
    └── PreconditionFailed   the caller's copy is out of date
        └── VersionMismatch

Which HTTP status a family becomes is written in chassis.problems and nowhere else.
"""


class DomainError(Exception):
    """Base of every expected failure.

    `code` is public: clients branch on it, so it never changes. The message goes to the client as it is: it holds
    no secret and no personal data.
    """

    code: str


class NotFound(DomainError):
    """The thing is not there."""


class Conflict(DomainError):
    """Not allowed in the current state."""


class Forbidden(DomainError):
    """Not allowed for this caller."""


class PreconditionFailed(DomainError):
    """The caller decided on an outdated copy."""


class VersionMismatch(PreconditionFailed):
    """Somebody else changed the thing since the caller read it."""

    code = "version_mismatch"
