"""The template's mirror has what renders need and no more, and versions that nobody uses leave the cache."""

import os
import time
from pathlib import Path

import pytest

from fleet.cache import UNUSED_DAYS, cache, prune
from fleet.template import manifest, release
from fleet.template.manifest import Manifest
from fleet.template.template import Template
from tests.support.commands import git

ADDRESS = "https://git.example.com/platform/template.git"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test alone: a command of another test, at the same time, would prune the shared cache."""
    monkeypatch.setenv("FLEET_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a release, as a Git host has it."""
    monkeypatch.setattr(release, "_COMPLETE", set())
    repository = tmp_path / "hosted"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch", "main")
    released(repository, "v1.0.0")
    config = tmp_path / "gitconfig"
    git(tmp_path, "config", "--file", str(config), f"url.file://{repository}.insteadOf", ADDRESS)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("FLEET_TEMPLATE", ADDRESS)
    return repository


def released(repository: Path, tag: str) -> None:
    (repository / "copier.yml").write_text(f"# {tag}\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", tag)
    git(repository, "tag", tag)


def refs(repository: Path) -> list[str]:
    return git(repository, "for-each-ref", "--format=%(refname)").splitlines()


def test_a_mirror_has_branches_and_tags_and_nothing_of_a_pull_request(hosted: Path) -> None:
    git(hosted, "checkout", "--quiet", "--detach")
    (hosted / "large").write_bytes(os.urandom(2**20))
    git(hosted, "add", "--all")
    git(hosted, "commit", "--quiet", "--message", "Offer a change")
    git(hosted, "update-ref", "refs/pull/1/head", "HEAD")
    git(hosted, "checkout", "--quiet", "main")
    template = Template(ADDRESS)
    assert template.releases == ["v1.0.0"]
    assert refs(template.repository) == ["refs/heads/main", "refs/tags/v1.0.0"]
    released(hosted, "v1.1.0")
    git(hosted, "branch", "next")
    again = Template(ADDRESS)
    again.refresh()
    assert again.newest().version == "v1.1.0"
    assert refs(again.repository) == ["refs/heads/main", "refs/heads/next", "refs/tags/v1.0.0", "refs/tags/v1.1.0"]
    assert sum(file.stat().st_size for file in again.repository.rglob("*") if file.is_file()) < 2**19


def age(path: Path) -> None:
    then = time.time() - (UNUSED_DAYS + 1) * 24 * 60 * 60
    os.utime(path, (then, then))


def test_a_version_that_no_run_has_used_for_a_month_leaves_the_cache(
    hosted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tag in ("v1.1.0", "v1.2.0"):
        released(hosted, tag)
    template = Template(ADDRESS)
    unused, used, newest = (template.at(version).folder for version in ("v1.0.0", "v1.1.0", "v1.2.0"))
    for path in (unused, unused.with_suffix(".lock"), used):
        age(path)
    monkeypatch.setattr(release, "_COMPLETE", set())  # as in a new run, which has checked no version yet
    assert template.at("v1.1.0").folder == used
    prune()  # the first call only records the day
    age(cache() / "pruned")
    prune()
    assert {path.name for path in (cache() / "versions").iterdir() if path.is_dir()} == {used.name, newest.name}
    assert not unused.with_suffix(".lock").exists()


DIGEST, OTHER = "0" * 38, "1" * 38
PLACES = {
    *(f"compiled/jinja2-3-copier-9/__jinja2_{DIGEST}.cache", f"facts/0a/{DIGEST}.json", f"manifests/0a/{DIGEST}.json"),
    *(f"maps/{DIGEST}.json", f"repositories/{DIGEST}", f"services/{DIGEST}.git", f"standings/{DIGEST}.json"),
    *(f"templates/{DIGEST}.git", f"tools/0a/{DIGEST}.json", f"versions/{DIGEST}", "kingfisher-1"),
}


def test_files_that_no_run_has_used_for_a_month_leave_the_cache_once_a_day(tmp_path: Path) -> None:
    for place in PLACES:
        for name in (place, place.replace(DIGEST, OTHER).replace("-1", "-2")):
            file = cache() / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.mkdir() if file.suffix in ("", ".git") else file.touch()
    outside = tmp_path / "outside/file"
    outside.parent.mkdir()
    outside.touch()
    (cache() / f"repositories/{DIGEST}/objects").symlink_to(outside.parent)
    for place in PLACES:
        age(cache() / place)
    prune()
    assert {place for place in PLACES if (cache() / place).exists()} == PLACES
    age(cache() / "pruned")
    prune()
    assert not {place for place in PLACES if (cache() / place).exists()}
    assert {
        place for place in PLACES if (cache() / place.replace(DIGEST, OTHER).replace("-1", "-2")).exists()
    } == PLACES
    assert outside.exists()


def test_folders_of_somebody_else_stay_where_the_cache_is() -> None:
    """FLEET_CACHE_DIR may be a folder that has other content, such as the root of a repository."""
    others = [cache() / path for path in ("services/billing", "tools/bin/lint", "versions/v1.0.0", "kingfisher-notes")]
    for folder in others:
        folder.mkdir(parents=True)
        age(folder)
    prune()
    age(cache() / "pruned")
    prune()
    assert [folder for folder in others if not folder.exists()] == []


def test_a_result_that_a_run_reads_stays_in_the_cache() -> None:
    read, other = (cache() / "manifests/0a" / f"{name}.json" for name in (DIGEST, OTHER))
    for file in (read, other):
        manifest.remember(file, Manifest({}, {}, [], {}, []))
        age(file)
    assert manifest.recall(read)
    prune()
    age(cache() / "pruned")
    prune()
    assert (read.exists(), other.exists()) == (True, False)
