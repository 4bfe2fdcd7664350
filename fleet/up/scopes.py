"""The scopes of an access token, by the committed API documents."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fleet.up.product import Checkout
from fleet.up.regular_file import read_regular_file
from fleet.up.wiring import Peer, find


def find_scopes(known: Sequence[Peer], audience: str, client: str) -> list[str]:
    """Return the scopes of a token for `audience`: the scopes that the calls in specs/uses of `client` need.

    A client without that document, and a person, has all scopes of the audience.
    """
    callers = [one for one in known if one.name == client and isinstance(one, Checkout)]
    provider = find(audience, known)
    names = {audience, provider.alias, audience.removesuffix("-service")} if provider else set()
    for file in (caller.folder / f"specs/uses/{name}.json" for caller in callers for name in sorted(names)):
        if file.is_file():
            return scopes(_read(file))
    if isinstance(provider, Checkout):
        return scopes(_read(provider.folder / "specs/openapi.json"))
    return scopes(provider.document.content) if provider and provider.document else []


def scopes(document: Any) -> list[str]:
    """Return all scopes that the operations of an API document demand."""
    with suppress(LookupError, TypeError, AttributeError):
        routes = [route for path in document["paths"].values() for route in path.values()]
        needs = [need for route in routes if isinstance(route, dict) for need in route.get("security", ())]
        return sorted({scope for need in needs for named in need.values() for scope in named})
    return []


def _read(file: Path) -> Any:
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(read_regular_file(file))
    return None
