"""The configuration of a local repository names programs: none of them runs during any command of fleet."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.check.checks import CHECKS
from fleet.check.drift import check_drift
from fleet.errors import FleetError
from fleet.service.fleet_toml import Member
from fleet.service.mirror import newest
from fleet.service.service import Service
from fleet.status.status import status
from fleet.update.conflicts import refuse_conflicts
from fleet.update.outcomes import RunOptions
from fleet.update.update import Options, update
from fleet.update.update_all import update_all
from tests.fleet.services import Born, commit
from tests.support.commands import git

pytestmark = pytest.mark.slow

# Sections of .git/config. @run@ is a program that records its runs, in the folder @folder@.
HOSTILE = {
    "fsmonitor": "[core]\nfsmonitor = @run@",
    "fsmonitor-hook-version": "[core]\nfsmonitor = @run@\nfsmonitorHookVersion = 1\nuntrackedCache = true",
    "hooks-path": "[core]\nhooksPath = @folder@/hooks",
    "include": "[include]\npath = @folder@/included",
    "include-if": '[includeIf "gitdir:/"]\npath = @folder@/included',
    "worktree-config": "[core]\nrepositoryformatversion = 1\n[extensions]\nworktreeConfig = true",
    "filter": '[filter "evil"]\nclean = @run@\nsmudge = @run@\nrequired = true',
    "filter-process": '[filter "evil"]\nprocess = @run@\nrequired = true',
    "external-diff": "[diff]\nexternal = @run@",
    "diff-driver": '[diff "evil"]\ntextconv = @run@\ncommand = @run@',
    "merge-driver": '[merge "evil"]\ndriver = @run@\n[merge]\ndefault = evil',
    "signature": "[commit]\ngpgSign = false\n[gpg]\nprogram = @run@\n[log]\nshowSignature = true\n[merge]\nverifySignatures = true",
    "ssh-signature": '[gpg]\nformat = ssh\n[gpg "ssh"]\nprogram = @run@\ndefaultKeyCommand = @run@',
    "pager": "[core]\npager = @run@\neditor = @run@\n[pager]\nstatus = @run@\nlog = @run@\ngrep = @run@",
    "alias": "[alias]\n" + "\n".join(f"{name} = !@run@" for name in ("status", "rev-parse", "ls-tree", "log", "grep")),
    "askpass": "[core]\naskPass = @run@\n[credential]\nhelper = !@run@",
    "ssh-command": '[core]\nsshCommand = @run@\ngitProxy = @run@\n[remote "origin"]\nurl = ssh://nobody@localhost:1/x',
    "lazy-ext": '[core]\nrepositoryformatversion = 1\n[extensions]\npartialClone = origin\n[protocol "ext"]\nallow = always\n'
    '[remote "origin"]\nurl = "ext::sh -c @run@"\npromisor = true\nfetch = +refs/*:refs/*',
    "lazy-upload-pack": "[core]\nrepositoryformatversion = 1\n[extensions]\npartialClone = origin\n"
    '[remote "origin"]\nurl = /nowhere\npromisor = true\nuploadpack = @run@\nreceivepack = @run@\nvcs = evil',
    "instead-of": '[protocol "ext"]\nallow = always\n[url "ext::sh -c @run@ "]\ninsteadOf = /\n[remote "origin"]\nurl = /x',
    "pack-objects": "[uploadpack]\npackObjectsHook = @run@\n[core]\nalternateRefsCommand = @run@",
    "submodule": '[submodule "evil"]\nupdate = !@run@\nactive = true\nurl = /nowhere',
    "maintenance": "[gc]\nauto = 1\nautoDetach = false\nrecentObjectsHook = @run@\n[maintenance]\nauto = true",
    "trailer": '[trailer "evil"]\ncommand = @run@\ncmd = @run@\n[interactive]\ndiffFilter = @run@',
    "another-folder": "[core]\nworktree = @folder@/elsewhere",
    "hooks": "",
}
HOOKS = [
    "applypatch-msg",
    "commit-msg",
    "fsmonitor-watchman",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-rewrite",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-push",
    "pre-rebase",
    "prepare-commit-msg",
    "push-to-checkout",
    "reference-transaction",
]


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder with the program, hooks that run it, and a file to include. `ran` lists the runs."""
    folder = tmp_path / "evil"
    (folder / "hooks").mkdir(parents=True)
    (folder / "elsewhere").mkdir()
    program = folder / "run"
    program.write_text(f'#!/bin/sh\necho "$PPID $0 $*" >> {folder}/ran\nexit 1\n')
    program.chmod(0o755)
    for name in HOOKS:
        (folder / "hooks" / name).symlink_to(program)
    (folder / "included").write_text(f"[core]\nfsmonitor = {program}\n")
    return folder


@pytest.fixture(autouse=True)
def nothing_runs(evil: Path) -> Iterator[None]:
    yield
    assert not (evil / "ran").exists(), (evil / "ran").read_text()


def sabotage(service: Path, evil: Path, names: list[str]) -> Path:
    config = "\n".join(HOSTILE[name] for name in names)
    config = config.replace("@run@", str(evil / "run")).replace("@folder@", str(evil))
    with (service / ".git/config").open("a") as file:
        file.write(f"\n{config}\n")
    (service / ".git/config.worktree").write_text(f"[core]\nfsmonitor = {evil / 'run'}\n")
    (service / ".git/info").mkdir(exist_ok=True)
    (service / ".git/info/attributes").write_text("* filter=evil diff=evil merge=evil\n")
    (service / ".git/hooks").mkdir(exist_ok=True)
    for name in HOOKS if "hooks" in names else []:
        (service / ".git/hooks" / name).unlink(missing_ok=True)
        (service / ".git/hooks" / name).symlink_to(evil / "run")
    # Git has to compare the file by its content again, as after a copy.
    os.utime(service / "Makefile", (1, 1))
    return service


@pytest.mark.usefixtures("in_this_process")
def test_twenty_good_services_are_fine_next_to_hostile_services(born: Born, evil: Path) -> None:
    good = [Member(f"good-{number}", str(born()), is_local=True) for number in range(20)]
    groups = [[*HOSTILE][start::4] for start in range(4)]
    hostile = [Member(group[0], str(sabotage(born(), evil, group)), is_local=True) for group in groups]
    found = status([*hostile, *good])
    assert [one.name for one in found if one.unreadable or one.drift] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_working_copy_is_read_and_nothing_runs(born: Born, evil: Path, name: str) -> None:
    service = sabotage(born(), evil, [name])
    (service / "ruff.toml").unlink()
    (service / "new.txt").write_text("new\n")
    read = Service(service)
    assert read.read("new.txt") == b"new\n"
    assert [one.path for one in check_drift(read)] == ["ruff.toml"]
    assert read.base is None
    refuse_conflicts(service, "Scars")
    assert newest(Member("x", str(service), is_local=True)).id == newest(Member("x", f"file://{service}")).id


def test_everything_at_once_is_checked_and_updated_and_nothing_runs(born: Born, evil: Path, tmp_path: Path) -> None:
    service = sabotage(born(), evil, [*HOSTILE])
    for check in CHECKS:
        list(check(Service(service)))
    done = update_all([Member("x", str(service), is_local=True)], tmp_path / "work", RunOptions(test=False), jobs=1)
    assert [one.failure for one in done] == [""]
    assert update(service, Options({}, finish=False)).changed


def test_an_object_that_is_missing_is_not_fetched_from_where_the_repository_says(born: Born, evil: Path) -> None:
    service = born()
    (service / "secret.txt").write_text("lost\n")
    commit(service)
    blob = git(service, "rev-parse", "HEAD:secret.txt").strip()
    (service / ".git/objects" / blob[:2] / blob[2:]).unlink()
    sabotage(service, evil, ["lazy-ext", "instead-of"])
    with pytest.raises(Exception, match="git has lost the file"):
        Service(service, "HEAD").read("secret.txt")


def test_a_submodule_does_not_bring_its_configuration(born: Born, evil: Path, tmp_path: Path) -> None:
    service, other = born(), tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    (other / "a").write_text("")
    commit(other)
    git(service, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "vendored")
    commit(service)
    git(service / "vendored", "config", "core.fsmonitor", str(evil / "run"))
    os.utime(service / "vendored/a", (1, 1))
    assert list(check_drift(Service(service))) == []


def test_a_pipe_in_the_place_of_the_configuration_holds_up_nobody(
    born: Born, monkeypatch: pytest.MonkeyPatch, evil: Path
) -> None:
    service = born()
    (service / ".git/config").unlink()
    os.mkfifo(service / ".git/config")
    assert Service(service, "HEAD").name == "billing"
    assert newest(Member("x", str(service), is_local=True)).answers()
    monkeypatch.setattr("fleet.git.configuration.CONFIGURATION_SECONDS", 1)
    with pytest.raises(FleetError, match="reading the configuration of git was given up after 1 seconds"):
        _ = Service(service).tree
