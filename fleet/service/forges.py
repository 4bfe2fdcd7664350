"""Links to repositories, commits and lines at the forge: GitHub, GitLab, Gitea and its relative Forgejo.

The address comes from fleet.toml or a listing, and paths come from repositories. Anything beyond a plain address makes no link.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

# The path of a file at a commit, by the kind of forge.
PATTERNS = {
    "github": "{repository}/blob/{commit}/{path}",
    "gitlab": "{repository}/-/blob/{commit}/{path}",
    "gitea": "{repository}/src/commit/{commit}/{path}",
}

# The path of a commit, by the kind of forge.
COMMITS = {
    "github": "{repository}/commit/{commit}",
    "gitlab": "{repository}/-/commit/{commit}",
    "gitea": "{repository}/commit/{commit}",
}

# The kind of a forge by a word in the name of its host.
WORDS = {"github": "github", "gitlab": "gitlab", "gitea": "gitea", "forgejo": "gitea", "codeberg": "gitea"}

_HOST = r"(?P<host>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)"
_PATH = r"(?P<path>[\w.~+-]+(?:/[\w.~+-]+)*)"
_ADDRESSES = (
    # Credentials in an address are left out of the link, and so is the port of SSH.
    re.compile(rf"(?P<scheme>https?)://(?:[^@/\s]*@)?{_HOST}(?P<port>:\d{{1,5}})?/{_PATH}/?", re.ASCII | re.IGNORECASE),
    re.compile(rf"(?P<scheme>ssh)://(?:[\w.-]+@)?{_HOST}(?::\d{{1,5}})?/{_PATH}/?", re.ASCII | re.IGNORECASE),
    re.compile(rf"(?:[\w.-]+@)?{_HOST}:{_PATH}/?", re.ASCII | re.IGNORECASE),
)


@dataclass(frozen=True)
class Forge:
    """The page of one repository. Both fields are empty for an address that makes no link."""

    repository: str = ""
    kind: str = ""

    def link(self, commit: str, path: str, line: int = 0) -> str:
        """Return the link to a line of a file; empty if the kind of the forge is not known, or the path is not plain."""
        parts = path.split("/")
        if not self.kind or not re.fullmatch("[0-9a-f]{40}", commit) or {"", ".", ".."} & set(parts):
            return ""
        page = PATTERNS[self.kind].format(repository=self.repository, commit=commit, path=quote(path, errors="replace"))
        return f"{page}#L{line}" if line else page

    def link_commit(self, commit: str) -> str:
        """Return the link to a commit by its full or short id; empty if the id is invalid or the kind of the forge is unknown."""
        if not self.kind or not re.fullmatch("[0-9a-f]{7,40}", commit):
            return ""
        return COMMITS[self.kind].format(repository=self.repository, commit=commit)


def forge(address: str, kinds: Mapping[str, str] | None = None) -> Forge:
    """Return the forge of a repository's address. `kinds` are the kinds of hosts whose names do not show them."""
    found = next(filter(None, (pattern.fullmatch(address) for pattern in _ADDRESSES)), None)
    if not found or {".", ".."} & set(found["path"].split("/")):
        return Forge()
    parts = found.groupdict()
    host, path = parts["host"].lower(), parts["path"].removesuffix(".git")
    scheme = "http" if (parts.get("scheme") or "").lower() == "http" else "https"
    known = next((kind for word, kind in WORDS.items() if word in host), "")
    return Forge(f"{scheme}://{host}{parts.get('port') or ''}/{path}", (kinds or {}).get(host, known))
