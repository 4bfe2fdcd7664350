"""Find out from where this `fleet` was installed."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fleet.errors import FleetError


def origin() -> dict[str, Any]:
    """Return the source of the installation as direct_url.json has it (PEP 610); empty if the source is not known."""
    try:
        return json.loads(distribution("slipway").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return {}


def repository() -> str:
    """Return the template's repository from which fleet was installed: a git URL, or a folder.

    Raises FleetError if the repository is not known.
    """
    found = origin()
    url = found.get("url", "")
    if "vcs_info" in found:
        return url
    if "dir_info" in found and Path(folder := unquote(urlsplit(url).path), "copier.yml").exists():
        return folder
    raise FleetError(
        "the installation of fleet does not show where the template is: name its git URL by --template, by "
        "FLEET_TEMPLATE, or by `template` in fleet.toml; or install fleet from the template (uv tool install git+URL)"
    )


def version() -> str:
    """Return the version of the package, which seldom changes.

    If fleet was installed from git, the version also names the requested revision and the commit.
    """
    try:
        of_package = distribution("slipway").version
    except PackageNotFoundError:
        return "fleet, not installed"
    vcs = origin().get("vcs_info", {})
    asked_for = " ".join(filter(None, (vcs.get("requested_revision"), vcs.get("commit_id", "")[:12])))
    return f"fleet {of_package}" + (f" ({asked_for})" if asked_for else "")
