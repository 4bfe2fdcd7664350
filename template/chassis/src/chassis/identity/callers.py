"""The caller of the current request."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request, by a verified access token.

    `subject` is the user, or the service that calls for itself; only the issuer and the subject together are unique.
    `client` is the application that obtained the token, if the token names one. `claims` holds the claims that
    `Oidc(claims=[…])` asks for, as far as the token has them.
    """

    subject: str
    issuer: str
    client: str | None
    scopes: frozenset[str]
    claims: Mapping[str, Any] = field(default_factory=dict, hash=False)


current_caller: ContextVar[Caller] = ContextVar("current_caller")


def caller() -> Caller:
    """Return the caller of the current request. Raises RuntimeError outside of a request, and in a public route."""
    try:
        return current_caller.get()
    except LookupError:
        raise RuntimeError("nobody is known here: call caller() only inside a route that demands scopes") from None
