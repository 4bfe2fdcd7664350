"""Limits of time, memory and size: work that exceeds a limit stops, with a message of one sentence."""

import ast
import itertools
import os
import resource
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.cache import preparing
from fleet.check import check as checking
from fleet.check.checks import check_conventions
from fleet.conventions import conventions
from fleet.conventions.packages import FromIndex, Locked, WithinRanges
from fleet.conventions.tests import fits
from fleet.errors import FleetError, MachineError, Malformed
from fleet.git import cat_file, git, objects
from fleet.map import reader
from fleet.processes.parallel import Failure, in_processes
from fleet.processes.resource_limits import LimitExceeded, limit_resources
from fleet.service.fleet_toml import Member
from fleet.service.mirror import mirror_of, newest
from fleet.service.openapi import Operation
from fleet.service.service import Service
from fleet.service.waivers import Waivers
from fleet.status.status import _prepare, status
from fleet.template.answers import Answers, load, load_all
from tests.fleet.bombs import DEEP, blob, bomb, forge, laughs, many, with_tree
from tests.fleet.services import Born, commit
from tests.support.commands import git as git_of_tests


def test_a_thread_leaves_the_memory_limit_of_the_process_alone() -> None:
    """Otherwise a limit would stay, because the thread would restore the limit that the main thread had."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    has_begun, may_end = threading.Event(), threading.Event()

    def prepare() -> None:
        with limit_resources("the preparation"):
            has_begun.set()
            may_end.wait(10)

    with limit_resources("the service"):
        thread = threading.Thread(target=prepare)
        thread.start()
        assert has_begun.wait(10)
    may_end.set()
    thread.join()
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def for_ever() -> None:
    while True:
        pass


def without_being_told() -> None:
    """Compute without an end, and catch all exceptions, as a check does that reports any failure."""
    while True:
        try:
            for_ever()
        except Exception:
            continue


@pytest.mark.parametrize("compute", [for_ever, without_being_told])
def test_an_endless_computation_is_stopped(compute: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    with (
        pytest.raises(LimitExceeded, match=r"judging it takes more than 0\.2 seconds of computing"),
        limit_resources("judging it"),
    ):
        compute()


@pytest.mark.parametrize("written", ["abc", "", "0", "-1", "nan", "inf", "1e30"])
def test_a_limit_that_is_none_is_refused(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", written)
    told = (
        rf"FLEET_LIMIT_SECONDS is '{written}', and has to be a number of seconds, .*: correct the variable, or unset it"
    )
    with pytest.raises(FleetError, match=told), limit_resources("judging it"):
        pass
    with pytest.raises(FleetError, match=told):
        status([])


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce a limit of memory")
def test_a_computation_that_takes_all_memory_is_stopped() -> None:
    with (
        pytest.raises(LimitExceeded, match="judging it takes more than 2048 MiB of memory"),
        limit_resources("judging it"),
    ):
        bytearray(2**33)
    bytearray(2**28)  # the full memory is available again


def test_a_computation_that_nests_too_deeply_is_stopped() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(LimitExceeded, match="judging it nests too deeply"), limit_resources("judging it"):
        deeper()


@pytest.mark.parametrize("kind", ["listed", "merged"])
def test_aliases_that_make_a_billion_values_are_refused(kind: str) -> None:
    with pytest.raises(yaml.YAMLError, match="its aliases make more than 500,000 values"):
        list(load_all(laughs(kind)))
    with pytest.raises(FleetError, match=r"\.copier-answers\.yml is not YAML"):
        Answers.parse(laughs(kind).encode())


@pytest.mark.slow
def test_more_values_than_a_file_may_have_are_refused_before_construction() -> None:
    with pytest.raises(yaml.YAMLError, match="it has more than 500,000 values"):
        load("[" + "1," * 600_000 + "]")


@pytest.mark.parametrize("parse", [Answers.parse, Waivers.parse])
def test_a_record_of_more_than_a_mebibyte_is_refused_unread(parse: Callable[[bytes], object]) -> None:
    with pytest.raises(FleetError, match="has 1,048,577 bytes, and fleet reads up to 1,048,576 of it"):
        parse(b"x".ljust(2**20 + 1))


def test_a_value_that_holds_itself_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="its aliases make more than"):
        load("a: &a [*a]")


def test_common_aliases_are_read() -> None:
    assert load("a: &a {b: 1}\nc: {<<: *a, d: *a}") == {"a": {"b": 1}, "c": {"b": 1, "d": {"b": 1}}}


def test_a_long_path_is_compared_with_many_unknown_parts_at_once() -> None:
    operation = Operation("/" + "x" * 5000 + "!", "get", {}, (), None, {}, 0)
    assert not fits("/" + "x\0" * 200 + "y", operation)
    assert fits("/x\0x\0!", operation)


def test_a_file_of_another_content_than_its_id_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("honest", "forged"):
        (tmp_path / name).mkdir()
        git_of_tests(tmp_path / name, "init", "--quiet")
        (tmp_path / name / "file").write_text("good")
        commit(tmp_path / name)
    honest, forged = (Service(tmp_path / name, "HEAD", "HEAD") for name in ("honest", "forged"))
    forge(tmp_path / "forged", honest.tree["file"].blob, b"evil")

    def read(folder: Path) -> str:
        return (folder / "file").read_text()

    with pytest.raises(FleetError, match="does not match the id"):
        forged.read("file")
    with pytest.raises(FleetError, match="does not match the id"):
        forged.compute_once("reader 1", ("file",), read)
    assert honest.compute_once("reader 1", ("file",), read) == "good"


@pytest.mark.parametrize("beginning", ["# coding: utf-7\n", "\r# coding: utf-7\n"])
def test_a_comment_that_python_reads_as_code_is_no_comment(tmp_path: Path, beginning: str) -> None:
    git_of_tests(tmp_path, "init", "--quiet")
    (tmp_path / "a.py").write_bytes(f"{beginning}# +AAo-import fastapi\n".encode())
    (tmp_path / "b.py").write_bytes(b"\xef\xbb\xbf# -*- coding: UTF-8 -*-\nimport fastapi\n")
    commit(tmp_path)
    with pytest.raises(
        FleetError, match=r"a\.py is not Python: it declares the coding utf-7, and may declare only UTF-8"
    ):
        Service(tmp_path).python("a.py")
    assert isinstance(Service(tmp_path).python("b.py").body[0], ast.Import)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Git read for a short time only."""
    monkeypatch.setattr(git, "GIT_SECONDS", 0.5)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git_of_tests(tmp_path, "init", "--quiet", "repository")
    (tmp_path / "repository/readme").write_text("Read me\n")
    commit(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_tree_of_empty_folders_that_has_no_end_is_refused(repository: Path) -> None:
    tree = git.line(repository, "mktree", stdin=b"")
    for _ in range(12):
        listed = "".join(f"040000 tree {tree}\t{number:02}\n" for number in range(30))
        tree = git.line(repository, "mktree", stdin=listed.encode())
    with pytest.raises(FleetError, match="more than 100,000 files and folders"):
        objects.tree(repository, tree)


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_an_object_is_given_up_once_for_all_files(repository: Path, quick: None) -> None:
    name = blob(repository, b"harm")
    file = repository / ".git/objects" / name[:2] / name[2:]
    file.unlink()
    os.mkfifo(file)
    blobs = objects.Objects(repository)
    with pytest.raises(MachineError, match=r"reading .* was given up after 0\.5 seconds"):
        blobs.read(name)
    begun = time.monotonic()
    for _ in range(100):
        with pytest.raises(MachineError, match="was given up"):
            blobs.read(name)
    assert time.monotonic() - begun < 25  # it would be 50 if each read waited


def loose(repository: Path, name: str) -> Path:
    """Return the path of the object with this id in Git's store."""
    return repository / ".git/objects" / name[:2] / name[2:]


def test_a_damaged_file_is_no_reason_to_take_other_files_for_lost(repository: Path) -> None:
    damaged, whole = blob(repository, os.urandom(5000)), blob(repository, b"whole")
    content = loose(repository, damaged).read_bytes()
    loose(repository, damaged).unlink()
    loose(repository, damaged).write_bytes(content[:-500])
    reader = objects.Objects(repository)
    with pytest.raises(MachineError, match=damaged):
        list(reader.read_all([whole, damaged]))
    assert reader.read(whole) == b"whole"
    with pytest.raises(MachineError, match=damaged):
        reader.find(damaged, "blob")
    assert reader.find("HEAD:readme", "blob") == git.line(repository, "rev-parse", "HEAD:readme")


def test_a_killed_git_is_started_again(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            started.append(self)

    monkeypatch.setattr(cat_file.subprocess, "Popen", Noted)
    reader = objects.Objects(repository)
    (readme,) = [entry.blob for entry in reader.tree().values()]
    assert reader.read(readme) == b"Read me\n"
    started[-1].kill()
    started[-1].wait()
    assert reader.read(readme) == b"Read me\n"
    started[-1].kill()
    started[-1].wait()
    assert reader.find("HEAD:readme", "blob") == readme
    assert reader.find("HEAD:missing", "blob") is None


@pytest.mark.slow
def test_many_large_files_are_not_in_memory_at_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with many names is read only once."""
    monkeypatch.setattr(cat_file, "GROUP_BYTES", 4 * 2**20)
    large = [blob(repository, bytes([number]) * 2 * 2**20) for number in range(20)]
    tracemalloc.start()
    try:
        sizes = [len(content) for content in objects.Objects(repository).read_all([*large, *large[:1] * 30])]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sizes == [2 * 2**20] * 50
    assert most < 20 * 2**20


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([(b"7777777777777777777100644", b"a")], "is damaged: clone"),
        ([(b"100644", b"a"), (b"100755", b"a")], "two files or folders with the name zz/a"),
        ([(b"100644", b"a"), (b"40000", b"a")], "two files or folders with the name zz/a"),
    ],
)
def test_a_folder_that_no_system_can_hold_is_refused(
    repository: Path, entries: list[tuple[bytes, bytes]], told: str
) -> None:
    ids = {b"40000": git.line(repository, "mktree", stdin=b"")}
    content = b"".join(
        mode + b" " + name + b"\0" + bytes.fromhex(ids.get(mode) or blob(repository, b"")) for mode, name in entries
    )
    with_tree(
        repository, git.line(repository, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=content)
    )
    with pytest.raises(FleetError, match=told):
        objects.tree(repository)


def start_or_wait(what: tuple[str, Path]) -> None:
    """In a process of its own, start a program that holds a pipe, or wait until another process has started it."""
    kind, folder = what
    if kind == "start":
        with (folder / "pipe").open("wb") as pipe:
            subprocess.run(["/bin/sh", "-c", f"touch '{folder}/started'; exec sleep 50"], stdout=pipe)
    while not (folder / "started").exists():
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_programs_that_a_process_has_started_end_with_the_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        at_work = in_processes(start_or_wait, [("start", tmp_path), ("wait", tmp_path)], jobs=2)
        (kind, _), result = next(at_work)
        assert (kind, isinstance(result, Failure)) == ("wait", False)
        at_work.close()
        deadline = time.monotonic() + 20
        while is_held(pipe):
            assert time.monotonic() < deadline, "the program goes on"
            time.sleep(0.05)
    finally:
        os.close(pipe)


def is_held(pipe: int) -> bool:
    """Return whether any process could write to the pipe."""
    try:
        return os.read(pipe, 1) != b""
    except BlockingIOError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("made", [many, bomb])
def test_more_files_than_a_service_has_are_refused(born: Born, made: Callable[[Path], str]) -> None:
    service = born()
    with_tree(service, made(service))
    with pytest.raises(FleetError, match="more than 100,000 files"):
        _ = Service(service, "HEAD").tree


@pytest.mark.slow
def test_a_file_that_is_too_large_is_a_finding_and_the_next_file_is_read(
    born: Born, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cat_file, "MOST_BYTES", 3 * 2**20)
    service = born()
    (service / "src/billing/large.bin").write_bytes(b"\0" * (3 * 2**20 + 1))
    commit(service)
    opened = Service(service, "HEAD", "HEAD")
    with pytest.raises(FleetError, match="has 3 MiB, and fleet reads files of up to 3 MiB: keep it outside of git"):
        opened.read("src/billing/large.bin")
    assert b"copier" in (opened.read("Makefile") or b"").lower()
    reasons = {one.id: one.reason for one in check_conventions(opened)}
    assert "fleet reads files of up to 3" in reasons["supply-no-secrets"]


HOSTILE_FILES = {
    "specs/openapi.json": "[" * DEEP,
    "specs/asyncapi.json": '{"a":' * DEEP,
    "src/billing/deep.py": "a = " + "-" * DEEP + "1\n",
    "src/billing/long.py": "a = b" + ".c" * DEEP + "\n",
    "src/billing/domain/sums.py": "a = 1" + "+1" * DEEP + "\n",
    "catalog-info.yaml": "- " * DEEP,
    "pyproject.toml": "a = " + "[" * DEEP,
    "uv.lock": "version = " + "9" * DEEP,
    "CODEOWNERS": "*" * DEEP + " @team\n",
    "docs/runbook.md": "#" * DEEP,
    "deploy/overlays/production/kustomization.yaml": laughs("merged"),
    ".gitlab-ci.yml": laughs("listed"),
}


@pytest.fixture(scope="module")
def hostile(born: Born) -> dict[str, Path]:
    """A service with each hostile file. The programs of conventions judge all services in one run, as in `fleet status`."""
    services = {path: born(ci="both") for path in HOSTILE_FILES}
    for path, service in services.items():
        (service / path).parent.mkdir(parents=True, exist_ok=True)
        (service / path).write_text(HOSTILE_FILES[path])
        commit(service)
    _prepare([Service(service, "HEAD", "HEAD") for service in services.values()])
    return services


@pytest.mark.slow
@pytest.mark.xdist_group("hostile-files")
@pytest.mark.parametrize("path", HOSTILE_FILES)
def test_a_file_that_is_made_to_break_its_reader_is_a_finding_and_no_bug(hostile: dict[str, Path], path: str) -> None:
    with limit_resources("judging it"):
        found = list(check_conventions(Service(hostile[path], "HEAD", "HEAD")))
    assert [one for one in found if "has a bug" in one.reason] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "package = 5\n",
        "package = [1]\n",
        "[[package]]\nversion = '1'\n",
        "[[package]]\nname = 'billing'\nmetadata = 5\n",
    ],
)
def test_a_lock_file_of_other_types_is_a_finding_and_no_bug(born: Born, text: str) -> None:
    service = born()
    (service / "uv.lock").write_text(text)
    commit(service)
    opened = Service(service, "HEAD", "HEAD")
    for convention in (Locked(), WithinRanges(), FromIndex()):
        with pytest.raises(Malformed, match=r"uv\.lock has something that uv does not write"):
            list(convention.check(opened))


@pytest.mark.slow
def test_a_thousand_findings_of_a_convention_are_enough(born: Born, monkeypatch: pytest.MonkeyPatch) -> None:
    (logs,) = (one for one in conventions() if one.id == "code-logs")
    monkeypatch.setattr("fleet.check.checks.conventions", lambda: [logs])
    service = born()
    (service / "src/billing/loud.py").write_text("print()\n" * 3000)
    commit(service)
    found = list(check_conventions(Service(service, "HEAD", "HEAD")))
    assert len(found) == 1001
    assert found[-1].reason == "there are more than 1,000 places like this"


def test_a_thousand_findings_of_one_kind_are_enough(born: Born) -> None:
    service = born()
    names = [f"{folder}{number}" for number in range(1200) for folder in ("chassis/extra/", "notes/a", "notes/A")]
    name = blob(service, b"")
    listed = "".join(f"100644 {name}\t{path}\n" for path in names)
    git.git(service, "update-index", "--index-info", stdin=listed.encode())
    git_of_tests(service, "commit", "--quiet", "--message", "Many")
    report = checking.examine(checking.Options(service, "HEAD", only_drift=True))
    assert isinstance(report, checking.Report)
    for id_ in ("drift-extra", "path-case"):
        found = [one for one in report.findings if one.id == id_]
        assert len(found) == 1001
        assert found[-1].reason == "there are more than 1,000 places like this"


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HUGE = "{{ 'x' * 10 ** 11 }}"


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("text", "told"), [(ENDLESS, "seconds of computing"), (HUGE, "MiB of memory")])
def test_a_template_that_never_stops_rendering_is_one_line_of_the_report(
    born: Born, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    template = tmp_path / "slipway"
    git_of_tests(tmp_path, "clone", "--quiet", str(history), str(template))
    with (template / "template/Makefile.jinja").open("a") as file:
        file.write(text)
    commit(template)
    git_of_tests(template, "tag", "v9.0.0")
    hostile, good = born(), born()
    answers = hostile / ".copier-answers.yml"
    text = answers.read_text().replace(str(history), str(template))
    answers.write_text(text.replace("_commit: v1.0.0", "_commit: v9.0.0"))
    commit(hostile)
    for module in ("check.checks", "status.status"):
        monkeypatch.setattr(f"fleet.{module}.conventions", lambda: ())
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "3")
    monkeypatch.setenv("FLEET_TRUSTED_TEMPLATES", f"{history}\n{template}")
    members = [Member(one.parent.name, str(one), is_local=True) for one in (hostile, good)]
    found = status(members, jobs=1)
    assert told in found[0].unreadable
    assert found[1].unreadable == ""


@pytest.mark.slow
@pytest.mark.parametrize("many", [True, False])
def test_a_host_that_sends_more_than_the_limit_is_given_up_and_leaves_no_files(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FLEET_LIMIT_MIB", "1")
    for number in range(5):  # five objects below the limit, or one object above it
        (repository / f"random-{number if many else 0}").open("ab").write(os.urandom(2**19))
    commit(repository)
    member = Member("large", f"file://{repository}")
    with pytest.raises(
        FleetError, match=r"sends more than 1 MiB\. If the repository has to be larger .* set FLEET_LIMIT_MIB"
    ):
        newest(member)
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file()) < 2**20
    monkeypatch.setenv("FLEET_LIMIT_MIB", "9")
    assert newest(member).id == git.line(repository, "rev-parse", "HEAD")


def test_the_next_run_removes_the_partial_packs_of_a_killed_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    member = Member("killed", f"file://{repository}")
    newest(member)
    partial = mirror_of(member) / "objects/pack/tmp_pack_killed"
    partial.write_bytes(b"part of a pack")
    newest(member)
    assert not partial.exists()


def test_the_next_run_removes_the_folder_that_a_killed_run_prepared(tmp_path: Path) -> None:
    with preparing(tmp_path / "mirror.git") as folder:
        (folder / "part").touch()
        with preparing(tmp_path / "mirror.git") as again:
            assert list(again.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_fetch_that_fails(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    (repository / "large").write_bytes(os.urandom(2**20))
    commit(repository)
    harm = b"100644 .git\0" + bytes.fromhex(blob(repository, b""))
    tree = git.line(repository, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=harm)
    with_tree(repository, tree)
    with pytest.raises(FleetError, match=r"\.git"):
        newest(Member("harm", f"file://{repository}"))
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file()) < 2**20


def test_an_endless_answer_of_a_host_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FLEET_LIMIT_MIB", "1")
    monkeypatch.setenv("GIT_SSH_COMMAND", "yes >&2 #")
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    with pytest.raises(FleetError, match="sends more than 1 MiB"):
        newest(Member("talker", "ssh://git@git.example.com/talker.git"))


@pytest.mark.parametrize("written", ["0", "-1", "1.5", "many", ""])
def test_a_limit_of_a_fetch_that_is_none_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FLEET_LIMIT_MIB", written)
    with pytest.raises(FleetError, match=rf"FLEET_LIMIT_MIB is '{written}', and has to be a whole number of MiB"):
        newest(Member("x", f"file://{repository}"))


def compute_in_c(_: object) -> None:
    """Run one call of C, during which Python handles no signal."""
    with limit_resources("the service"):
        sum(itertools.repeat(0))


def has_a_terminal(_: object) -> bool:
    """Return whether a program such as ssh could wait for a person's input."""
    return os.getsid(0) != os.getpid()


@pytest.mark.slow
def test_a_process_has_no_terminal_on_which_a_program_could_ask() -> None:
    assert dict(in_processes(has_a_terminal, ["one"], jobs=1)) == {"one": False}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_process_that_hangs_in_a_call_of_c_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    ((_, lost),) = in_processes(compute_in_c, ["one"], jobs=1)
    assert isinstance(lost, Failure)
    assert lost.why.startswith("the service takes more than 0.2 seconds of computing, and was given up")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_check_that_hangs_in_a_call_of_c_is_given_up(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    monkeypatch.setattr(checking, "examine", compute_in_c)
    with pytest.raises(FleetError, match=r"the service takes more than 0\.2 seconds of computing"):
        checking.check(checking.Options(repository))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_map_names_the_service_that_hangs_in_a_call_of_c_and_does_not_try_its_commit_again(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    member = Member("slow", str(repository), is_local=True)
    with monkeypatch.context() as patch:
        patch.setattr(reader, "attempt_facts", compute_in_c)
        assert "more than 0.2 seconds of computing" in reader.read_members([member]).unread["slow"]
        patch.setattr(reader, "in_processes", lambda _, todo, **__: pytest.fail("tried again") if todo else iter(()))
        assert "more than 0.2 seconds of computing" in reader.read_members([member]).unread["slow"]
