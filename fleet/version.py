"""Which `fleet` this is."""

import json
from importlib.metadata import PackageNotFoundError, distribution


def version() -> str:
    """The package's, which seldom changes; if it is from git, also what was asked for there, and the commit."""
    try:
        slipway = distribution("slipway")
    except PackageNotFoundError:
        return "fleet, not installed"
    vcs = json.loads(slipway.read_text("direct_url.json") or "{}").get("vcs_info", {})
    origin = " ".join(filter(None, (vcs.get("requested_revision"), vcs.get("commit_id", "")[:12])))
    return f"fleet {slipway.version}" + (f" ({origin})" if origin else "")
