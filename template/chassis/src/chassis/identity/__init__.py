"""The caller of a request: verified access tokens of an OIDC issuer, and the scopes that a route demands."""

from chassis.identity.callers import Caller, caller
from chassis.identity.demands import public, scopes
from chassis.identity.part import Oidc
from chassis.identity.settings import OidcSettings

__all__ = ["Caller", "Oidc", "OidcSettings", "caller", "public", "scopes"]
