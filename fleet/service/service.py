"""One service: its files, its answers, the render that its recorded template version makes, and its waivers."""

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from fleet.cache import cache, mark_used, write_atomically
from fleet.errors import FleetError
from fleet.git import git
from fleet.git.objects import Entry, blob_id
from fleet.policy.policy import Policy, policy_of
from fleet.policy.traits import Traits, find_traits
from fleet.service.files import Files
from fleet.service.waivers import WAIVERS_FILE, Waivers, today
from fleet.template.answers import ANSWERS_FILE, OTHER_ANSWERS, Answers, parse_recorded
from fleet.template.manifest import Manifest
from fleet.template.release import Release
from fleet.template.template import Template

T = TypeVar("T")

CATALOGUE = "catalog-info.yaml"


class Service(Files):
    """A service that checks look at. No method writes into its repository."""

    def __init__(self, repository: Path, ref: str | None = None, base: str | None = None) -> None:
        """Open a service. `ref` is a commit; None means the working copy. `base` is the commit that it will be merged into.

        Raises FleetError if `repository` is not the root of a repository, or does not have these commits.
        """
        super().__init__(repository, ref)
        _refuse_nested(repository, self.root)
        if base and base != ref and not self._objects.find(f"{base}^{{commit}}", "commit"):
            raise FleetError(f"{repository} has no commit {base} to compare with: fetch it, or name another base")
        self._base = base

    @property
    def name(self) -> str:
        """The answer service_name, in kebab-case."""
        return str(self.answers.values.get("service_name", ""))

    @property
    def package(self) -> str:
        """The name of the service's Python package."""
        return self.name.replace("-", "_")

    def misnamed(self, name: str) -> str:
        """Explain why this cannot be the name of the service, which half of the platform's files contain; empty if it can."""
        folder = f"src/{name.replace('-', '_')}/"
        if name and any(path.startswith(folder) for path in self.tree):
            return ""
        return f"the service's name would be {name!r}, and there is no {folder}" if name else "there is no service_name"

    @cached_property
    def answers(self) -> Answers:
        """The recorded answers. Raises FleetError."""
        return parse_recorded(self.read(ANSWERS_FILE), self.other_answers)

    def other_answers(self) -> dict[str, bytes | None]:
        """Return the answers to other templates that are recorded in this repository, by path."""
        return {path: self.read(path) for path in self.files(OTHER_ANSWERS) if "/" not in path}

    @cached_property
    def template(self) -> Template:
        """The template of the service. A caller with many services sets one template for all of them. Raises FleetError."""
        return Template(self.answers.source)

    @cached_property
    def release(self) -> Release:
        """The template version that the service was made from or last updated to. Raises FleetError."""
        return self.template.recorded_release(self.answers)

    @cached_property
    def expected(self) -> Manifest:
        """The files that this version renders from the service's answers. Raises FleetError."""
        return self.release.manifest(self.answers)

    def equals_render(self, path: str) -> bool:
        """Return whether a file is in the service as the recorded version renders it. Raises FleetError."""
        found, rendered = self.tree.get(path), self.expected.entry_of(path)
        if found == rendered or not rendered or path in self.expected.platform:
            return found == rendered
        content = self.release.rendered(self.answers, None).read(path)
        return content is not None and found == Entry(rendered.mode, blob_id(content))

    @cached_property
    def traits(self) -> Traits:
        """The owner, the domain and the tier. A malformed catalogue names no tier. Raises FleetError."""
        try:
            catalogue = self.yaml(CATALOGUE)
        except FleetError:  # conventions report the file
            catalogue = []
        return find_traits(self.expected.answers, catalogue, self.name)

    @cached_property
    def waivers(self) -> Waivers:
        """The content of conventions.yml, with the objections of the policy. Raises FleetError."""
        found = self.written_waivers
        return found.with_objections(self.policy.approval, today()) if found.waivers else found

    @cached_property
    def written_waivers(self) -> Waivers:
        """The content of conventions.yml as it is written, without a look at the policy. Raises FleetError."""
        return Waivers.parse(self.read(WAIVERS_FILE))

    @cached_property
    def policy(self) -> Policy:
        """The policy that FLEET_POLICY names, or that of the template's newest release. Raises FleetError.

        It may name conventions that this `fleet` does not know, because a service may run an older one.
        """
        return policy_of(self.template.newest())

    def is_waived(self, path: str) -> bool:
        """Return whether the file may differ from the template's, by a valid waiver."""
        waiver = self.waivers.of_path(path)
        return waiver is not None and not waiver.void_because(self.tree.get(path), today())

    @cached_property
    def base(self) -> "Service | None":
        """The service at the commit where this work branched off the base; None if there is no base here."""
        name = self._base or self._default_base()
        if name is None:
            return None
        if name == self.ref:
            return self
        shared = git.answer(self.root, "merge-base", name, self.ref or "HEAD")
        if shared is None and self._repository and self._repository.is_shallow:
            raise FleetError(
                f"{self.root} is a shallow clone, which does not have the commit where this work branched off {name}: run "
                "`git fetch --unshallow` there"
            )
        return Service(self.root, shared or name)

    def _default_base(self) -> str | None:
        # Git sorts the names, so the preferred name comes first: HEAD, then main, then master.
        branches = [f"refs/remotes/*/{name}" for name in ("HEAD", "main", "master")]
        found = git.line(self.root, "for-each-ref", "--format=%(refname)", *branches).splitlines()
        remotes = list(dict.fromkeys(name.removeprefix("refs/remotes/").rpartition("/")[0] for name in found))
        if len(remotes) > 1 and "origin" not in remotes:
            raise FleetError(
                f"{self.root} has several remotes, {', '.join(remotes)}, and none is called origin: name the branch to "
                "compare with by --base"
            )
        remote = "origin" if "origin" in remotes else next(iter(remotes), "")
        return next((name for name in found if name.startswith(f"refs/remotes/{remote}/")), None)

    def compute_once(self, tool: str, patterns: tuple[str, ...], compute: Callable[[Path], T]) -> T:
        """Call `compute` with a checkout of the files that match, and cache the result for the same files.

        The result has to be JSON. `tool` names the tool and its version, because results of other versions do not count.
        """
        file = self.result_file(tool, patterns)
        try:
            found = json.loads(file.read_bytes())
            mark_used(file)
            return found
        except (OSError, ValueError):
            with self.checkout(*patterns) as folder:
                result = compute(folder)
            write_atomically(file, json.dumps(result))
            return result

    def result_file(self, tool: str, patterns: tuple[str, ...]) -> Path:
        """Return the file in the cache for a result of `compute_once`."""
        inputs = [tool, *(f"{path} {self.tree[path].mode} {self.tree[path].blob}" for path in self.files(*patterns))]
        digest = hashlib.sha256("\0".join(inputs).encode(errors="surrogateescape")).hexdigest()
        return cache() / "tools" / digest[:2] / f"{digest[2:40]}.json"


def _refuse_nested(path: Path, root: Path) -> None:
    """Refuse a service in a folder of a repository. Raises FleetError."""
    for folder in (path.resolve(), *path.resolve().parents):
        if not folder.is_relative_to(root.resolve()) or folder == root.resolve():
            return
        if (folder / ANSWERS_FILE).exists():
            raise FleetError(
                f"{folder} is a service in a folder of the repository {root}, and a service needs its own repository: move it "
                "into one (git subtree split), and run fleet there"
            )
