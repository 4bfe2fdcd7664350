"""The services of a product that have a checkout on this machine."""

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fleet.errors import FleetError
from fleet.git import remote
from fleet.service.fleet_toml import Member, members
from fleet.template.answers import ANSWERS_FILE, load, not_yaml, refuse_long
from fleet.up.regular_file import read_regular_file
from fleet.up.stubs import Stub

NAME = re.compile(r"(?!postgres$|template\d$|public$|none$|pg-)(?=.{2,40}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""Names by the template's rule, without the names of PostgreSQL's own roles and databases."""


@dataclass(frozen=True)
class Checkout:
    """A service's working copy. `settings` are from fleet.toml, and win over derived settings."""

    folder: Path
    answers: Mapping[str, Any] = field(compare=False)
    settings: Mapping[str, str] = field(compare=False, default_factory=dict)
    alias: str = ""
    """The name in fleet.toml, by which neighbours may know the service."""

    @property
    def name(self) -> str:
        return str(self.answers["service_name"])

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")

    @property
    def broker(self) -> str:
        """The broker of its messages: nats, kafka or rabbitmq; empty if it has no messages."""
        return "" if self.answers.get("messaging_style", "sync") == "sync" else str(self.answers.get("broker", "nats"))

    @property
    def has_sagas(self) -> bool:
        return "queues" in str(self.answers.get("messaging_style", "")) and self.answers.get("sagas") == "postgres"

    @property
    def has_identity(self) -> bool:
        return self.answers.get("auth") == "oidc"


@dataclass(frozen=True)
class Selection:
    """The services that `fleet up` starts, and the known services that it leaves out, which others may call all the same."""

    started: list[Checkout]
    left_out: list[Checkout]
    missing: list[str]
    """The entries of fleet.toml without a checkout here."""
    stubs: list[Stub] = field(default_factory=list)
    """The services that are not started, and that a stub stands in for."""

    @property
    def known(self) -> list[Checkout | Stub]:
        """All services that another service may call."""
        return [*self.started, *self.left_out, *self.stubs]


def select(
    folders: Collection[Path],
    config: Path,
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    clone: bool = False,
) -> Selection:
    """Find the services. Without folders, fleet.toml names the services. Raises FleetError."""
    listed = members(config) if not folders or config.exists() else []
    places = {place_of(member, config): member for member in listed}
    wanted = [folder.resolve() for folder in folders] or list(places)
    if clone:
        for place in wanted:
            if place in places and not place.exists():
                _clone(places[place], place)
    missing = [] if folders else [places[place].name for place in wanted if not place.exists()]
    found = [_checkout(place, places.get(place)) for place in wanted if folders or place.exists()]
    if not found:
        raise FleetError(f"no service of {config} has a checkout here: `fleet up --clone` makes one of each")
    _refuse_same_names(found)
    for name in (*only, *without):
        if name not in {one.name for one in found}:
            raise FleetError(
                f"there is no service {name} here: the services are {', '.join(one.name for one in found)}"
            )
    started = [one for one in found if one.name not in without and (not only or one.name in only)]
    if not started:
        raise FleetError("--only and --without leave no service to start: name another one")
    return Selection(started, [one for one in found if one not in started], missing)


def place_of(member: Member, config: Path) -> Path:
    """Return where the checkout of a member is, or would be: a repository with a URL lies next to fleet.toml."""
    return Path(member.address) if member.is_local else config.resolve().parent / re.split(r"[/:]", member.name)[-1]


def _checkout(folder: Path, member: Member | None) -> Checkout:
    file = folder / ANSWERS_FILE
    try:
        content = read_regular_file(file)
        refuse_long(str(file), content)
        answers = load(content)
    except OSError as error:
        raise FleetError(f"{folder} is no service: {ANSWERS_FILE} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FleetError(f"{not_yaml(str(file), error)}: restore it from git") from None
    name = answers.get("service_name") if isinstance(answers, dict) else None
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise FleetError(f"{file}: service_name is {name!r}, and has to be a name such as user-profile: correct it")
    checkout = Checkout(folder, answers, member.settings if member else {}, member.name if member else folder.name)
    for part in ("Makefile", f"src/{checkout.package}/__main__.py"):
        if not (folder / part).exists():
            raise FleetError(
                f"{folder} has no {part}, so it cannot be started: restore it, or name the folders to start"
            )
    return checkout


def _refuse_same_names(found: list[Checkout]) -> None:
    for one, other in _pairs(found):
        if one.package == other.package:
            raise FleetError(
                f"{one.folder} and {other.folder} are both the service {one.name}, and would share a database: leave one out"
            )


def _pairs(found: list[Checkout]) -> Iterator[tuple[Checkout, Checkout]]:
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            yield one, other


def _clone(member: Member, place: Path) -> None:
    if member.is_local:
        raise FleetError(f"{place} does not exist, and fleet.toml names no url to clone {member.name} from: write one")
    branch = [f"--branch={member.branch}"] if member.branch else []
    with tempfile.TemporaryDirectory(dir=place.parent) as unfinished:
        remote.exchange(Path(unfinished), "clone", "--quiet", *branch, "--", member.address, f"{unfinished}/clone")
        Path(unfinished, "clone").rename(place)
