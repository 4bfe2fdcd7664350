"""The families of expected failures. Standard library only, so that domain code may use them.

    DomainError
    ├── NotFound             the resource does not exist
    ├── Conflict             the current state forbids the change
    ├── Forbidden            this caller may not do this
    └── PreconditionFailed   the caller's copy is out of date
        └── VersionMismatch

Only chassis.problems maps a family to an HTTP status.
"""


class DomainError(Exception):
    """Base of every expected failure.

    `code` is public: clients branch on it, so it never changes. The message goes to the client
    unchanged, so it must hold no secret and no personal data.
    """

    code: str


class NotFound(DomainError):
    """The resource does not exist."""


class Conflict(DomainError):
    """The current state forbids the change."""


class Forbidden(DomainError):
    """This caller may not do this."""


class PreconditionFailed(DomainError):
    """The caller decided on an outdated copy."""


class VersionMismatch(PreconditionFailed):
    """The resource has changed since the caller read it."""

    code = "version_mismatch"
