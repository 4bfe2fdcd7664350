"""How this `fleet` came to be installed."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any


def origin() -> dict[str, Any]:
    """What the installer was told to install, as direct_url.json has it (PEP 610); empty if that is not known."""
    try:
        return json.loads(distribution("slipway").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return {}


def version() -> str:
    """The package's, which seldom changes; if it is from git, also what was asked for there, and the commit."""
    try:
        of_package = distribution("slipway").version
    except PackageNotFoundError:
        return "fleet, not installed"
    vcs = origin().get("vcs_info", {})
    asked_for = " ".join(filter(None, (vcs.get("requested_revision"), vcs.get("commit_id", "")[:12])))
    return f"fleet {of_package}" + (f" ({asked_for})" if asked_for else "")
