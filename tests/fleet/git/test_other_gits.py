"""Personal settings, and forms of a repository, that Git knows and the template's own repositories lack."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.check.drift import check_drift
from fleet.errors import FleetError
from fleet.git import git as git_module
from fleet.service.fleet_toml import Member
from fleet.service.mirror import newest
from fleet.service.service import Service
from fleet.template.template import Template
from fleet.template.trust import is_path, refuse_untrusted, trust
from fleet.update.conflicts import refuse_conflicts
from fleet.update.generated import finish, team_environment
from fleet.update.outcomes import RunOptions
from fleet.update.update import Options, update
from fleet.update.update_all import update_all
from tests.fleet.services import Born, commit
from tests.support.commands import git

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository with one file, for tests that render nothing."""
    repository = tmp_path / "small"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch", "main")
    (repository / "a.txt").write_text("a\n")
    commit(repository)
    return repository


# --- Personal settings -------------------------------------------------------------------------------------------------

# Each of these settings has changed the output or the behaviour of Git, and no code of fleet names such a setting.
PERSONAL = """
[safe]
    bareRepository = explicit
[column]
    ui = always
[color]
    ui = always
[grep]
    patternType = fixed
    fullName = true
    lineNumber = true
[core]
    abbrev = 4
    quotePath = true
    commentChar = v
    safecrlf = true
    hooksPath = {folder}/hooks
    fsmonitor = {folder}/hooks/post-checkout
[log]
    showSignature = true
    date = relative
    follow = true
    decorate = full
[status]
    showUntrackedFiles = no
    relativePaths = false
    short = true
    branch = true
[diff]
    noprefix = true
    renames = copies
    external = false
    relative = true
[tag]
    sort = version:refname
[i18n]
    logOutputEncoding = UTF-16
    commitEncoding = UTF-16
[init]
    defaultBranch = trunk
    templateDir = {folder}/template
    defaultObjectFormat = sha256
[clone]
    defaultRemoteName = upstream
    rejectShallow = true
[merge]
    ff = false
    verifySignatures = true
[commit]
    template = {folder}/none
    cleanup = strip
[fetch]
    recurseSubmodules = true
[submodule]
    recurse = true
[pager]
    status = false
[protocol]
    version = 0
"""
VARIABLES = {
    "GIT_DEFAULT_HASH": "sha256",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_ICASE_PATHSPECS": "1",
    "GIT_EXTERNAL_DIFF": "false",
    "GIT_DIFF_OPTS": "-u0",
    "GIT_CEILING_DIRECTORIES": "/",
    "GIT_REPLACE_REF_BASE": "refs/tags",
    "GIT_TEMPLATE_DIR": "/nowhere",
    "GIT_ATTR_SOURCE": "HEAD",
    "LC_ALL": "de_DE.UTF-8",
    "LANGUAGE": "de",
}


@pytest.fixture
def personal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person with unusual settings, whose hooks all fail, and who has no cache yet."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "pre-commit", "commit-msg", "post-merge", "reference-transaction", "pre-push"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    (tmp_path / "template/hooks").mkdir(parents=True)
    (tmp_path / "template/hooks/post-checkout").symlink_to(hooks / "post-checkout")
    (tmp_path / "gitconfig").write_text(PERSONAL.format(folder=tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def two_services(born: Born) -> tuple[Path, Path]:
    """Two services that are made before a test changes the settings of Git."""
    return born(), born()


def test_personal_settings_change_neither_reads_nor_writes_of_fleet(
    two_services: tuple[Path, Path], history: Path, personal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, expected = two_services
    (service / "ruff.toml").unlink()
    (service / "été.txt").write_text("")
    monkeypatch.setattr("fleet.template.trust._TRUSTED", "NOBODY")
    with (personal / "gitconfig").open("a") as file:
        file.write(f'[url "file://{history}"]\ninsteadOf = https://git.example.com/slipway\n')
    template = Template("https://git.example.com/slipway")
    assert template.releases == ["v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0"]
    assert [(one.id, one.path) for one in check_drift(Service(service))] == [("drift-deleted", "ruff.toml")]
    assert "été.txt" in Service(service).tree
    assert Service(newest(Member("x", f"file://{service}")).repository, "refs/fleet/newest").name == "billing"
    with pytest.raises(FleetError, match=r"ruff\.toml"):
        update(service, Options({}))
    (service / "été.txt").unlink()
    (service / "ruff.toml").write_bytes((expected / "ruff.toml").read_bytes())
    assert update(service, Options({}, finish=False)).changed
    assert not (personal / "hook-ran").exists()
    monkeypatch.undo()
    assert git(service, "log", "-1", "--format=%s %an") == "Update to template v1.3.0 Test\n"
    assert git(service, "status", "--porcelain") == ""


def test_failing_hooks_of_a_person_do_not_stop_the_update_of_all_services(
    two_services: tuple[Path, Path], personal: Path
) -> None:
    members = [
        Member("local", str(two_services[0]), is_local=True),
        Member("by-url", f"file://{two_services[1]}"),
    ]
    done = update_all(members, personal / "work", RunOptions(test=False), jobs=2)
    assert [(one.failure, one.new) for one in done] == [("", "v1.3.0")] * 2
    assert not (personal / "hook-ran").exists()


def test_commits_are_signed_by_the_program_of_the_person_and_not_by_that_of_the_repository(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born()
    signed = "-----BEGIN PGP SIGNATURE-----\n{name}\n-----END PGP SIGNATURE-----"
    for name in ("person", "repository"):
        (tmp_path / name).write_text(
            f"#!/bin/sh\ncat > /dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\necho '{signed.format(name=name)}'\n"
        )
        (tmp_path / name).chmod(0o755)
    git(service, "config", "gpg.program", str(tmp_path / "repository"))
    for name, value in (
        ("gpg.program", str(tmp_path / "person")),
        ("commit.gpgSign", "true"),
        ("user.signingKey", "me"),
    ):
        git(tmp_path, "config", "--file", "gitconfig", name, value)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert update(service, Options({}, finish=False)).changed
    commit_made = git(service, "cat-file", "commit", "HEAD")
    assert "\n person\n" in commit_made


def test_a_conflict_is_found_with_any_personal_settings_for_grep(small: Path, personal: Path) -> None:
    (small / "a.txt").write_text("<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n")
    with pytest.raises(FleetError, match=r"a\.txt: conflict markers"):
        refuse_conflicts(small, "Scars")


def test_ignored_files_and_the_author_follow_the_personal_settings(
    born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = born()
    (tmp_path / "ignored").write_text("*.swp\n")
    git(tmp_path, "config", "--file", "gitconfig", "core.excludesFile", str(tmp_path / "ignored"))
    git(tmp_path, "config", "--file", "gitconfig", "user.name", "Global")
    git(service, "config", "user.email", "local@example.com")
    git(service, "config", "user.name", "Local")
    (service / "notes.swp").write_text("")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name)
    assert "notes.swp" not in Service(service).tree
    assert update(service, Options({}, finish=False)).changed
    assert git(service, "log", "-1", "--format=%an %ae %cn") == "Local local@example.com Local\n"


# --- Forms of a repository ----------------------------------------------------------------------------------------------


def test_a_repository_that_names_objects_by_sha256_is_refused_by_name(tmp_path: Path) -> None:
    service = tmp_path / "service"
    service.mkdir()
    git(service, "init", "--quiet", "--object-format=sha256", "--initial-branch", "main")
    (service / "a").write_text("")
    commit(service)
    message = "names its objects by SHA-256, and fleet compares names by SHA-1"
    with pytest.raises(FleetError, match=f"{service} {message}"):
        Service(service)
    for member in (Member("x", str(service), is_local=True), Member("x", f"file://{service}")):
        with pytest.raises(FleetError, match=message):
            newest(member)


def test_a_template_that_names_objects_by_sha256_renders_as_any_other(
    history: Path, born: Born, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", "--object-format=sha256", other], check=True)
    stream = subprocess.run(["git", "-C", history, "fast-export", "--all"], capture_output=True, check=True).stdout
    subprocess.run(["git", "-C", other, "fast-import", "--quiet"], input=stream, check=True)
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FLEET_TRUSTED_TEMPLATES", raising=False)
    of_service = Service(born()).answers
    release = Template(str(other)).at("v1.0.0")
    assert release.manifest(of_service) == Template(str(history)).at("v1.0.0").manifest(of_service)


def test_a_sparse_checkout_is_read_whole_and_updated(born: Born) -> None:
    service = born()
    git(service, "status")  # records that the copied files are unchanged: the next command removes no other files
    git(service, "sparse-checkout", "set", "src", "tests")
    assert not (service / "docs").exists()
    whole = Service(service)
    assert list(check_drift(whole)) == []
    assert whole.read("docs/runbook.md")
    assert update(service, Options({}, finish=False)).changed
    assert git(service, "status", "--porcelain") == ""
    assert not (service / "docs").exists()
    assert "docs/operations/runbook.md" in Service(service, "HEAD").tree


def test_the_only_remote_is_the_base_of_a_comparison_under_any_name(born: Born, tmp_path: Path) -> None:
    origin, clone = born(), tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--origin", "upstream", str(origin), str(clone))
    (clone / "new.txt").write_text("")
    commit(clone)
    base = Service(clone).base
    assert base is not None
    assert base.ref == git(origin, "rev-parse", "HEAD").strip()


def test_several_remotes_none_of_which_is_called_origin_are_refused_by_name(small: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--origin", "fork", str(small), str(clone))
    git(clone, "remote", "add", "--fetch", "upstream", str(small))
    with pytest.raises(FleetError, match="several remotes, fork, upstream, and none is called origin: name the branch"):
        _ = Service(clone).base
    assert Service(clone, base="upstream/main").base is not None


def test_a_base_that_a_shallow_clone_does_not_have_is_refused_by_name(small: Path, tmp_path: Path) -> None:
    git(small, "switch", "--quiet", "--create", "work")
    (small / "work.txt").write_text("")
    commit(small)
    git(small, "switch", "--quiet", "main")
    (small / "main.txt").write_text("")
    commit(small)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth=1", "--no-single-branch", "--branch=work", f"file://{small}", str(clone))
    with pytest.raises(FleetError, match=f"{clone} is a shallow clone, which .* run `git fetch --unshallow`"):
        _ = Service(clone).base


@pytest.mark.parametrize("name", ["two\nlines", 'one "quoted"', '"quoted', "back\\slash", "tab\tand ü", "-dash", "*"])
def test_a_file_of_any_name_is_read_committed_or_not(small: Path, name: str) -> None:
    (small / name).write_text("content\n")
    assert Service(small).read(name) == b"content\n"
    commit(small)
    assert Service(small).read(name) == b"content\n"
    (small / name).write_text("changed\n")
    changed = Service(small)
    assert changed.read(name) == b"changed\n"
    assert changed.tree[name].blob == git(small, "hash-object", "--", name).strip()


def test_a_link_that_is_not_committed_yet_is_read(small: Path) -> None:
    (small / "link").symlink_to("a.txt")
    assert Service(small).read("link") == b"a.txt"


def test_an_unchanged_file_is_read_as_stored_with_any_conversion_by_the_checkout(small: Path) -> None:
    (small / ".gitattributes").write_text("*.txt working-tree-encoding=UTF-16 ident\n")
    (small / "a.txt").unlink()
    (small / "b.txt").write_bytes("$Id$ ä\n".encode("utf-16"))
    commit(small)
    (small / "b.txt").unlink()
    git(small, "checkout", "--", "b.txt")
    assert Service(small).text("b.txt") == "$Id$ ä\n"


def linked(repository: Path) -> Path:
    git(repository, "worktree", "add", "--quiet", "-b", "other", str(repository.parent / "linked"))
    return repository.parent / "linked"


def as_submodule(repository: Path) -> Path:
    product = repository.parent / "product"
    product.mkdir()
    git(product, "init", "--quiet")
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "services/small")
    git(product, *add)
    git(product / "services/small", "switch", "--quiet", "--create", "other")
    return product / "services/small"


def separate(repository: Path) -> Path:
    git(repository, "init", "--quiet", "--separate-git-dir", str(repository.parent / "elsewhere.git"))
    return repository


def through_a_link(repository: Path) -> Path:
    (repository.parent / "short").symlink_to(repository)
    return repository.parent / "short"


def bare(repository: Path) -> Path:
    git(repository.parent, "clone", "--quiet", "--bare", str(repository), "bare.git")
    return repository.parent / "bare.git"


def borrowing(repository: Path) -> Path:
    git(repository.parent, "clone", "--quiet", "--shared", str(repository), "borrowing")
    return repository.parent / "borrowing"


def packed(repository: Path) -> Path:
    Service(repository)  # reads the repository while it has no packed refs
    git(repository, "gc", "--quiet")
    return repository


FORMS = [linked, as_submodule, separate, through_a_link, bare, borrowing, packed]


@pytest.mark.parametrize("form", FORMS)
def test_a_repository_is_found_in_each_of_its_forms(small: Path, form: Callable[[Path], Path]) -> None:
    place = form(small)
    assert Service(place).read("a.txt") == b"a\n"
    if form is not bare:
        (place / "a.txt").write_text("b\n")
        assert Service(place).read("a.txt") == b"b\n"
        (place / "src").mkdir()
        assert Service(place / "src").root == place.resolve()


def test_a_partial_clone_is_read_and_its_missing_objects_are_not_fetched(small: Path, tmp_path: Path) -> None:
    first = git(small, "rev-parse", "HEAD").strip()
    (small / "a.txt").write_text("b\n")
    commit(small)
    git(small, "config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", f"file://{small}", str(clone))
    assert Service(clone).read("a.txt") == b"b\n"
    with pytest.raises(FleetError, match="is a partial clone: complete it by `git fetch --refetch --no-filter`"):
        Service(clone, first).read("a.txt")
    git(clone, "fetch", "--quiet", "--refetch", "--no-filter")
    assert Service(clone, first).read("a.txt") == b"a\n"


def test_history_is_read_as_committed(small: Path) -> None:
    """Replaced objects and grafts, which exist in one clone only, do not change the history."""
    commits = []
    for number in range(2):
        (small / "a.txt").write_text(f"{number}\n")
        commit(small)
        commits.append(git(small, "rev-parse", "HEAD").strip())
    git(small, "replace", commits[1], commits[0])
    (small / ".git/info").mkdir(exist_ok=True)
    (small / ".git/info/grafts").write_text(f"{commits[1]}\n")
    assert Service(small, "HEAD").read("a.txt") == b"1\n"
    assert git_module.line(small, "rev-list", "--count", "HEAD") == "3"


# --- Other content of a repository --------------------------------------------------------------------------------------


def test_the_answers_to_a_second_template_do_not_matter(born: Born) -> None:
    service = born()
    (service / ".copier-answers.docs.yml").write_text("_commit: v1\n_src_path: gh:acme/docs\n")
    commit(service)
    assert update(service, Options({}, finish=False)).changed


@pytest.mark.parametrize("of_another", [True, False])
def test_answers_under_another_name_are_refused_by_name(
    born: Born, history: Path, monkeypatch: pytest.MonkeyPatch, of_another: bool
) -> None:
    monkeypatch.setenv("FLEET_TRUSTED_TEMPLATES", str(history))
    service = born()
    git(service, "mv", ".copier-answers.yml", ".copier-answers.slipway.yml")
    if of_another:
        (service / ".copier-answers.yml").write_text("_commit: v1\n_src_path: gh:acme/docs\n")
    commit(service)
    message = r"answers to the platform's template are in \.copier-answers\.slipway\.yml, .*: rename the file"
    with pytest.raises(FleetError, match=message):
        _ = Service(service).answers
    with pytest.raises(FleetError, match=message):
        newest(Member("x", str(service), is_local=True)).answers()


def test_a_failing_make_specs_names_empty_submodules(born: Born, small: Path) -> None:
    service = born()
    git(service, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(small), "vendored")
    (service / "uv.lock").write_text("")
    (service / "local.mk").write_text("setup:\n\tcat vendored/a.txt\n")
    (service / "Makefile").write_text("specs:\n\tcat vendored/a.txt\n")
    commit(service)
    unfinished = finish(service)
    assert unfinished == ""
    (service / "vendored/a.txt").unlink()  # the checkout of an update has no files of a submodule
    assert "The submodules in .gitmodules were empty" in finish(service)
    assert update(service, Options({}, finish=False)).changed


def test_the_environment_of_another_project_is_not_given_to_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV", "PYTHONPATH"):
        monkeypatch.setenv(name, "/another")
    assert "/another" not in team_environment().values()


def test_a_template_that_moved_is_named_although_its_releases_are_known(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FLEET_TRUSTED_TEMPLATES", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    address = "https://localhost:1/slipway.git"
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{history}.insteadOf", address)
    assert Template(address).newest().version == "v1.3.0"
    (tmp_path / "gitconfig").unlink()
    template = Template(address)
    template.refresh_if_possible()
    assert template.newest().version == "v1.3.0"
    assert "cannot be fetched" in (said := capsys.readouterr().err)
    assert "If it has moved, write its new address into _src_path" in said


# --- Addresses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("myhost:team/repo", False),
        ("git@myhost:team/repo", False),
        ("https://myhost/team/repo", False),
        ("/a:b/repo", True),
        ("./a:b", True),
        ("../repo", True),
    ],
)
def test_an_address_counts_as_a_host_exactly_where_git_reads_a_host(address: str, expected: bool) -> None:
    assert is_path(address) is expected


def test_an_ssh_alias_without_a_user_names_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_TRUSTED_TEMPLATES", "")
    trust(["myhost:platform/slipway"])
    refuse_untrusted("git@myhost:platform/slipway.git")
    assert not Template("myhost:platform/slipway").is_local
    with pytest.raises(FleetError, match="not the platform's"):
        refuse_untrusted("otherhost:platform/slipway")


def test_a_service_is_made_from_a_template_behind_an_ssh_alias(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(tmp_path, "config", "--file", "gitconfig", f"url.file://{history}.insteadOf", "myhost:platform/slipway")
    command = [sys.executable, "-m", "fleet", "new", "billing", "--template", "myhost:platform/slipway", "--defaults"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    recorded = (tmp_path / "billing/.copier-answers.yml").read_text()
    assert "_src_path: git+myhost:platform/slipway\n" in recorded
