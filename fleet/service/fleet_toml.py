"""Read fleet.toml, which lists the services of the fleet and names their template.

template = "https://git.example.com/platform/slipway.git"   # or a list; left out: where fleet was installed from

[[service]]
url = "git@git.example.com:shop/billing.git"
branch = "main"                # left out: the repository's default branch
owner = "@shop/billing"        # these three count more than the service's own answers and catalogue
domain = "finance"
tier = "1"

[[service]]
path = "../orders"             # from this file's folder; read where it is, at the commit that is checked out
settings = { CARRIER_URL = "https://carrier.example" }   # for `fleet up` alone

[[listing]]
file = "shop.json"             # the answer of `gh api /orgs/shop/repos --paginate` or of GitLab's /groups/shop/projects
protocol = "ssh"               # left out: https
include = ["*-service"]
exclude = ["legacy-*"]
domain = "shop"                # for each service of the listing, as owner and tier

[forge]                        # the kinds of hosts whose names do not show them, for links in the page
"git.example.com" = "gitlab"   # or github, or gitea
"""

import hashlib
import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fleet.errors import FleetError
from fleet.git.git import without_credentials
from fleet.policy.levels import TRAITS
from fleet.policy.traits import Traits, parse_trait
from fleet.service.forges import PATTERNS
from fleet.template.trust import SHORTHANDS, expand, is_path

SERVICE_KEYS = {"url", "path", "branch", "name", "settings", *TRAITS}
LISTING_KEYS = {"file", "protocol", "include", "exclude", *TRAITS}

# Characters that no name and no address has, and that programs refuse: controls, and surrogates that only JSON can write.
UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f\\ud800-\\udfff]")

# The fields of GitHub and GitLab for the full name and the address by protocol.
HOSTS = (
    {"name": "full_name", "https": "clone_url", "ssh": "ssh_url"},
    {"name": "path_with_namespace", "https": "http_url_to_repo", "ssh": "ssh_url_to_repo"},
)


@dataclass(frozen=True)
class Member:
    """One service of the fleet. `address` is a git URL or an absolute path. An empty branch is the default branch."""

    name: str
    address: str
    branch: str = ""
    is_local: bool = False
    settings: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The settings of the service under `fleet up`."""
    traits: Traits = field(default_factory=Traits, compare=False)
    """The traits that fleet.toml states, which count more than the traits that the service states."""

    @property
    def key(self) -> str:
        """A unique short name for files about the service: 24 hexadecimal digits of a hash."""
        return hashlib.sha256(f"{self.address}\0{self.branch}".encode()).hexdigest()[:24]

    @property
    def shown_address(self) -> str:
        return without_credentials(self.address)


def templates(config: Path) -> list[str]:
    """Read the templates that the file names, if any. Raises FleetError."""
    named = _parse(config).get("template", [])
    addresses = [named] if isinstance(named, str) else named
    if not isinstance(addresses, list) or not all(isinstance(one, str) and one for one in addresses):
        raise FleetError(f"{config}: template has to be the git URL of a template, or a list of them; it is {named!r}")
    # A path is relative to the file's folder, like the paths of services.
    return [str(config.parent / expand(one)) if is_path(expand(one)) else one for one in addresses]


def forges(config: Path) -> dict[str, str]:
    """Read the kinds of forges by their hosts. Raises FleetError."""
    written = _parse(config).get("forge", {})
    if not isinstance(written, dict) or not all(isinstance(one, str) and one in PATTERNS for one in written.values()):
        raise FleetError(
            f'{config}: [forge] has to have lines such as "git.example.com" = "gitlab", with {", ".join(PATTERNS)}; '
            f"it is {written!r}"
        )
    return {host.lower(): kind for host, kind in written.items()}


def members(config: Path) -> list[Member]:
    """Read all services that the file lists, in its order. Raises FleetError, which names the entry, the fault and the remedy."""
    written = _parse(config)
    for kind in ("service", "listing"):
        if not isinstance(written.get(kind, []), list):
            raise FleetError(f"{config}: {kind} is not a list: write [[{kind}]] with two brackets")
    named = list(_services(config, written.get("service", [])))
    _refuse_repeated(config, named)
    known = {(member.address, member.branch) for member in named}
    listed = {one.address: one for one in _listings(config, written.get("listing", []))}
    found = named + _shorten_names([one for one in listed.values() if (one.address, "") not in known], named)
    if not found:
        raise FleetError(f"{config} lists no services: write [[service]] with a url or a path, or correct its listings")
    return found


def _parse(config: Path) -> dict[str, Any]:
    try:
        written = tomllib.loads(config.read_text())
    except FileNotFoundError:
        raise FleetError(
            f"{config} does not exist: write one (docs/how-to/see-the-fleet.md), or name it by --config"
        ) from None
    # ValueError is also raised for bytes that are not UTF-8, and for a number of thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        raise FleetError(f"{config} cannot be read: {error}") from None
    if unknown := sorted(set(written) - {"template", "service", "listing", "forge"}):
        raise FleetError(
            f"{config} has the unknown key {unknown[0]!r}: write template, [[service]], [[listing]] and [forge]"
        )
    return written


def _services(config: Path, entries: list[Any]) -> Iterator[Member]:
    for number, entry in enumerate(entries, 1):
        where = f"{config}: service {number}"
        _refuse_unknown(where, entry, SERVICE_KEYS)
        where += next((f" ({entry[key]})" for key in ("name", "url", "path") if entry.get(key)), "")
        settings, traits = _settings(where, entry.pop("settings", {})), _traits(where, entry)
        for key, value in entry.items():
            if not isinstance(value, str) or not value or value.startswith("-") or UNPRINTABLE.search(value):
                raise FleetError(
                    f"{where}: {key} has to be text on one line, and not begin with a hyphen; it is {value!r}"
                )
        if ("url" in entry) == ("path" in entry):
            raise FleetError(f"{where} needs either a url or a path: {'remove' if 'url' in entry else 'write'} one")
        if "path" in entry:
            address, is_local = os.path.abspath(_below(where, config, entry["path"])), True
        else:
            address, is_local = _expand(entry["url"]), False
            if "::" in address or not re.match(r"[\w+.-]+://|[^/\s]+:", address):
                raise FleetError(f"{where}: {address!r} is not a git URL: a folder is written as path = …")
        yield Member(entry.get("name") or _last(address), address, entry.get("branch", ""), is_local, settings, traits)


def _traits(where: str, entry: dict[str, Any]) -> Traits:
    """Take the traits out of an entry. Raises FleetError."""
    found = {name: entry.pop(name) for name in TRAITS if name in entry}
    for name, value in found.items():
        if not parse_trait(value):
            raise FleetError(f'{where}: {name} has to be a text on one line, as "shop"; it is {value!r}')
    return Traits(**{name: parse_trait(value) for name, value in found.items()})


def _settings(where: str, written: Any) -> dict[str, str]:
    if not isinstance(written, dict):
        raise FleetError(f'{where}: settings has to be a table, as {{ CARRIER_URL = "…" }}; it is {written!r}')
    for name, value in written.items():
        if not re.fullmatch("[A-Z][A-Z0-9_]*", name) or not isinstance(value, str | int | float) or "\0" in str(value):
            raise FleetError(
                f"{where}: {name} in settings has to be the name of an environment variable, such as CARRIER_URL, with a text, "
                f"a number, true or false; it is {value!r}"
            )
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in written.items()}


def _listings(config: Path, entries: list[Any]) -> Iterator[Member]:
    for number, entry in enumerate(entries, 1):
        where = f"{config}: listing {number}"
        _refuse_unknown(where, entry, LISTING_KEYS)
        if not isinstance(entry.get("file"), str):
            raise FleetError(f"{where} needs a file: write the path of the saved listing")
        where += f" ({entry['file']})"
        protocol, traits = entry.get("protocol", "https"), _traits(where, entry)
        if protocol not in ("https", "ssh"):
            raise FleetError(f"{where}: protocol is {protocol!r}: write https or ssh")
        for key in ("include", "exclude"):
            globs = entry.get(key, [])
            if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
                raise FleetError(f'{where}: {key} has to be a list of names, as ["*-service"]; it is {globs!r}')
        for repository in _repositories(where, _below(where, config, entry["file"])):
            full, address = _parse_repository(where, repository, protocol)
            wanted = any(fnmatchcase(_last(full), glob) for glob in entry.get("include", ["*"]))
            unwanted = any(fnmatchcase(_last(full), glob) for glob in entry.get("exclude", []))
            if wanted and not unwanted and not repository.get("archived"):
                yield Member(full, address, traits=traits)


def _repositories(where: str, file: Path) -> Iterator[Any]:
    """Yield the repositories in a file of a forge: one array, an array of pages, or one page after another.

    Old versions of `gh` print one page after another.
    """
    try:
        text = file.read_text().strip()
        while text:
            page, end = json.JSONDecoder().raw_decode(text)
            text = text[end:].lstrip()
            for entry in page if isinstance(page, list) else [page]:
                yield from entry if isinstance(entry, list) else [entry]
    except (OSError, ValueError, RecursionError) as error:
        raise FleetError(f"{where} cannot be read: {error}") from None


def _below(where: str, config: Path, written: str) -> Path:
    """Return a path from the folder of fleet.toml. Raises FleetError for the home folder of an unknown user."""
    try:
        return config.parent / Path(written).expanduser()
    except RuntimeError:
        raise FleetError(
            f"{where}: {written!r} begins with the home folder of a user who does not exist here"
        ) from None


def _parse_repository(where: str, repository: Any, protocol: str) -> tuple[str, str]:
    """Find the full name and the address of a repository. Raises FleetError."""
    for fields in HOSTS if isinstance(repository, dict) else ():
        name, address = repository.get(fields["name"]), repository.get(fields[protocol])
        if isinstance(name, str) and isinstance(address, str) and not UNPRINTABLE.search(name + address):
            return name, address
    raise FleetError(
        f"{where}: {json.dumps(repository)[:80]} is neither a repository of GitHub nor a project of GitLab: save the answer of "
        "`gh api /orgs/NAME/repos --paginate` or of GitLab's /groups/ID/projects"
    )


def _refuse_unknown(where: str, entry: Any, keys: set[str]) -> None:
    if not isinstance(entry, dict):
        raise FleetError(f"{where} is not a table: write [[{where.split()[-2]}]] above it")
    if unknown := sorted(set(entry) - keys):
        raise FleetError(f"{where} has the unknown key {unknown[0]!r}: write only {', '.join(sorted(keys))}")


def _refuse_repeated(config: Path, found: list[Member]) -> None:
    for what, keys in (
        ("is listed twice: remove one", [f"{one.shown_address} {one.branch}".strip() for one in found]),
        ("is the name of two services: give one of them another `name`", [one.name for one in found]),
    ):
        repeated = [key for key, times in Counter(keys).items() if times > 1]
        if repeated:
            raise FleetError(f"{config}: {repeated[0]} {what}")


def _shorten_names(listed: list[Member], named: list[Member]) -> list[Member]:
    """Shorten each full name, such as shop/billing, to its last part, unless another service has the same last part."""
    times = Counter([_last(one.name) for one in listed] + [one.name for one in named])
    return [one if times[_last(one.name)] > 1 else replace(one, name=_last(one.name)) for one in listed]


def _expand(url: str) -> str:
    return next((long + url[len(short) :] for short, long in SHORTHANDS.items() if long and url.startswith(short)), url)


def _last(address: str) -> str:
    return re.split(r"[/:]", address.rstrip("/"))[-1].removesuffix(".git")
