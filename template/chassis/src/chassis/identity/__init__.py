"""Who calls: verified access tokens of an OIDC issuer, and the scopes that a route demands."""

from chassis.identity.callers import Caller, caller
from chassis.identity.demands import public, scopes
from chassis.identity.part import Oidc

__all__ = ["Caller", "Oidc", "caller", "public", "scopes"]
