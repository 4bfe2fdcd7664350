"""One service, as its repository has it: a working copy with what is not committed yet, or any commit of any clone."""

from functools import cached_property
from pathlib import Path

from fleet import git
from fleet.answers import ANSWERS_FILE, Answers
from fleet.errors import FleetError
from fleet.git import Entry, Tree
from fleet.manifest import Manifest
from fleet.template import Release, Template
from fleet.waivers import WAIVERS_FILE, Waivers


class Service:
    """What checks look at. Nothing here writes."""

    def __init__(self, repository: Path, ref: str | None = None) -> None:
        """`ref` is a commit; None means the working copy.

        Raises FleetError if that is no repository with a commit.
        """
        if not git.succeeds(repository, "rev-parse", "--git-dir"):
            raise FleetError(f"{repository} is not a git repository")
        if not git.succeeds(repository, "rev-parse", "--verify", "--quiet", f"{ref or 'HEAD'}^{{commit}}"):
            raise FleetError(
                f"{repository} has no commit{f' {ref}' if ref else ' yet: commit what was generated first'}"
            )
        inside = git.succeeds(repository, "rev-parse", "--show-toplevel")
        self.root = Path(git.line(repository, "rev-parse", "--show-toplevel")) if inside else repository
        self.ref = ref if ref or inside else "HEAD"

    @cached_property
    def tree(self) -> Tree:
        """Its files, with what git ignores left out."""
        found = git.tree(self.root, self.ref or "HEAD")
        changed = git.changed_paths(self.root) if self.ref is None else []
        present = [path for path in changed if (self.root / path).is_symlink() or (self.root / path).is_file()]
        for path in changed:
            found.pop(path, None)
        # By git, not by us: a checkout may have other line ends than the blob.
        plain = [path for path in present if not (self.root / path).is_symlink()]
        names = "".join(f"{path}\n" for path in plain).encode(errors="surrogateescape")
        blobs = git.line(self.root, "hash-object", "--stdin-paths", stdin=names).split() if plain else []
        for path, blob in zip(plain, blobs, strict=True):
            found[path] = Entry("100755" if (self.root / path).stat().st_mode & 0o100 else "100644", blob)
        for path in set(present) - set(plain):
            target = str((self.root / path).readlink()).encode()
            found[path] = Entry("120000", git.line(self.root, "hash-object", "--stdin", stdin=target))
        return found

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        if path not in self.tree:
            return None
        if self.ref is None and not (self.root / path).is_symlink():
            return (self.root / path).read_bytes()
        return git.git(self.root, "cat-file", "blob", self.tree[path].blob)

    @cached_property
    def answers(self) -> Answers:
        """Raises FleetError."""
        return Answers.parse(self.read(ANSWERS_FILE))

    @cached_property
    def release(self) -> Release:
        """The template version it was born with or last updated to. Raises FleetError."""
        return Template(self.answers.source).at(self.answers.version)

    @cached_property
    def expected(self) -> Manifest:
        """What that version makes of its answers. Raises FleetError."""
        return self.release.manifest(self.answers)

    @cached_property
    def waivers(self) -> Waivers:
        """Raises FleetError."""
        return Waivers.parse(self.read(WAIVERS_FILE))
