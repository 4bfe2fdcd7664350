"""Decide which templates may be fetched and rendered: a service names its template, and a template runs code."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fleet.errors import FleetError
from fleet.git.git import without_credentials

# The short forms that Copier accepts besides git's own URLs, in the order in which `expand` replaces them: git+ before file://.
SHORTHANDS = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/", "git+": "", "file://": ""}

# The trusted templates are in the environment, so that the processes that check or update a part of the fleet trust them too.
_TRUSTED = "FLEET_TRUSTED_TEMPLATES"


def trust(addresses: Sequence[str]) -> None:
    """Trust these templates from now on, and no others."""
    os.environ[_TRUSTED] = "\n".join(map(_repository, addresses))


def is_decided() -> bool:
    """Return whether `trust` was called, here or by the fleet that started this process."""
    return _TRUSTED in os.environ


def is_trusted(address: str) -> bool:
    """Return whether the template is among the trusted templates, or no trusted template was named."""
    trusted = os.environ.get(_TRUSTED)
    return trusted is None or _repository(address) in trusted.splitlines()


def refuse_untrusted(address: str) -> None:
    """Refuse a template that is not among the trusted templates, if any were named. Raises FleetError."""
    if not is_trusted(address):
        trusted = " or ".join(os.environ[_TRUSTED].splitlines())
        raise FleetError(
            f"the recorded template {without_credentials(address)} is not the platform's, {trusted}: fleet neither fetches "
            "nor runs it. Correct _src_path of .copier-answers.yml; or, if this template is the platform's too, name it by "
            "--template, or by `template` in fleet.toml"
        )


def expand(address: str) -> str:
    """Replace Copier's short forms: return a git URL or a path."""
    for short, whole in SHORTHANDS.items():
        if address.startswith(short):
            address = whole + address.removeprefix(short)
    return os.path.expanduser(address)


def is_path(address: str) -> bool:
    """Return whether an expanded address is a path on this machine."""
    # The rule is git's: a colon before the first slash ends the name of a host, such as an alias in ~/.ssh/config.
    return ":" not in address.partition("/")[0]


def _repository(address: str) -> str:
    """Return the identity of a repository: the same for its addresses by HTTPS and by SSH."""
    url = expand(address)
    if is_path(url):
        return str(Path(url).resolve())
    # As git reads a URL, a host also ends at ? and #.
    found = re.fullmatch(r"(?:https://|ssh://)(?:[^/@?#]*@)?([^/?#]+)/(.*?)", url) or re.fullmatch(
        r"(?:[^/@:]*@)?([^/@:]+):(.*?)", url
    )
    host, path = (found[1].lower(), found[2]) if found else ("", url)
    return f"{host}/{path}".rstrip("/").removesuffix(".git") if found else path
