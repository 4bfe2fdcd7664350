"""A repository that was made by hand to do harm to whoever runs `fleet` on it: nothing of it runs or leaves its folder."""

import subprocess
import tempfile
from pathlib import Path

import pytest

from fleet import git as git_module
from fleet.errors import FleetError
from fleet.register import Member
from fleet.service import Service
from fleet.status import status
from tests.conftest import git
from tests.fleet.conftest import Born

pytestmark = pytest.mark.slow


def with_path(service: Path, path: str, content: bytes) -> None:
    """Commit a file under a path that git itself would not add, below the root of the service's tree."""

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


HARMFUL = ["src/billing/../../../../escaped.py", "src/../../escaped.py", "src/billing/.git/hooks/x", "src/.GIT/config"]


@pytest.mark.parametrize("path", HARMFUL)
def test_a_path_that_leaves_the_folder_is_refused(born: Born, path: str) -> None:
    hostile = born()
    with_path(hostile, path, b"")
    with pytest.raises(FleetError, match="leaves its folder"):
        _ = Service(hostile, "HEAD").tree


def test_status_writes_nothing_outside_of_its_folders(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile, good = born(), born()
    with_path(hostile, HARMFUL[0], b"print('run')\n")
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    # Where temporary checkouts are: four levels up is still inside of what the test looks at.
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a/b/c/d"))
    members = [
        Member("local", str(hostile), is_local=True),
        Member("remote", f"file://{hostile}"),
        Member("good", str(good), is_local=True),
    ]
    found = status(members, jobs=1)
    assert [bool(one.unreadable) for one in found] == [True, True, False]
    assert list(tmp_path.rglob("escaped.py")) == []


def test_what_is_fetched_is_checked_before_it_is_kept(born: Born, tmp_path: Path) -> None:
    hostile = born()
    with_path(hostile, "zz/../../escaped.py", b"")
    clone = ("clone", "--quiet", "--no-checkout", f"file://{hostile}", str(tmp_path / "clone"))
    with pytest.raises(FleetError, match="hasDotdot"):
        git_module.git(tmp_path, *clone)
    # The same by git alone, to see that it is we who refuse.
    subprocess.run(["git", *clone], check=True, cwd=tmp_path, capture_output=True)
