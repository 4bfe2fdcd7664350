"""Trees with paths that git itself would not commit."""

from pathlib import Path

from fleet.git import git as git_module
from tests.support.commands import git

HARMFUL = [
    "zz/billing/../../../../escaped.py",
    "zz/../../escaped.py",
    "zz/billing/.git/hooks/x",
    "zz/.GIT/config",
    "zz/.g\u200cit/config",
]


def with_path(service: Path, path: str, content: bytes) -> None:
    """Commit a file under a path that Git itself would refuse, below the root of the service's tree."""

    def made(kind: str, data: bytes) -> str:
        return git_module.line(service, "hash-object", "-w", "-t", kind, "--literally", "--stdin", stdin=data)

    oid = made("blob", content)
    *folders, name = path.split("/")
    mode = b"100644"
    for folder in [*reversed(folders)]:
        oid = made("tree", mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid))
        mode, name = b"40000", folder
    tree = git_module.git(service, "cat-file", "tree", "HEAD^{tree}")
    tree = made("tree", tree + mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid))
    commit = git_module.line(service, "commit-tree", "-p", "HEAD", "-m", "Harm", tree)
    git(service, "update-ref", "HEAD", commit)
