"""Small files and trees that take much time or memory to read."""

import zlib
from pathlib import Path

from fleet.git import git, objects

DEEP = 100_000


def laughs(kind: str) -> str:
    """Return a few lines that expand to a billion values."""
    lines = [f"a0: &a0 {'{x: y}' if kind == 'merged' else '[x, y]'}"]
    for number in range(1, 40):
        before = f"*a{number - 1}"
        lines.append(
            f"a{number}: &a{number} "
            + (f"{{<<: [{before}, {before}]}}" if kind == "merged" else f"[{before}, {before}]")
        )
    return "\n".join(lines)


def blob(repository: Path, content: bytes) -> str:
    return git.line(repository, "hash-object", "-w", "--stdin", stdin=content)


def forge(repository: Path, oid: str, content: bytes) -> None:
    """Replace the content of the object with this id in Git's store."""
    kept = repository / ".git/objects" / oid[:2] / oid[2:]
    kept.unlink(missing_ok=True)
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(zlib.compress(b"blob %d\0" % len(content) + content))


def with_tree(service: Path, tree: str) -> None:
    """Make a commit that adds this tree as the folder `zz`."""
    names = git.git(service, "ls-tree", "-z", "HEAD") + f"040000 tree {tree}\tzz\0".encode()
    whole = git.line(service, "mktree", "-z", stdin=names)
    made = git.line(service, "commit-tree", "-p", "HEAD", "-m", "Harm", whole)
    git.git(service, "update-ref", "HEAD", made)


def bomb(repository: Path) -> str:
    """Ten folders with ten folders each, and so on: 10^12 files in a few objects."""
    entry = f"100644 blob {blob(repository, b'')}\t"
    for _ in range(12):
        tree = git.line(repository, "mktree", stdin="".join(f"{entry}{name}\n" for name in "abcdefghij").encode())
        entry = f"040000 tree {tree}\t"
    return tree


def many(repository: Path) -> str:
    name = blob(repository, b"")
    listed = "".join(f"100644 blob {name}\t{number:06}\n" for number in range(objects.MOST_FILES + 1))
    return git.line(repository, "mktree", stdin=listed.encode())
