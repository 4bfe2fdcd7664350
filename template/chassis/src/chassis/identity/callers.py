"""The caller of the current request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chassis.database.unit_of_work import current_caller


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


def caller() -> Caller:
    """Return the caller of the current request. Raises RuntimeError outside of a request, and in a public route."""
    if (known := current_caller.get()) is None:
        raise RuntimeError("nobody is known here: call caller() only inside a route that demands scopes")
    return known
