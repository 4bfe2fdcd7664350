"""A file that the team deleted does not come back, for any place of the deletion in history, and from any clone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.service.fleet_toml import Member
from fleet.service.seeds import find_deleted
from fleet.service.service import Service
from fleet.update.outcomes import RunOptions
from fleet.update.update import Options, update
from fleet.update.update_all import update_all
from tests.fleet.services import Born, commit, state
from tests.support.commands import git

pytestmark = pytest.mark.slow

# Version 1.1.0 adds this seed.
SEED = "docs/on-call.md"


def write(repository: Path, path: str = SEED) -> None:
    (repository / path).parent.mkdir(parents=True, exist_ok=True)
    (repository / path).write_text("ours\n")
    commit(repository)


def delete(repository: Path, path: str = SEED) -> None:
    (repository / path).unlink()
    commit(repository)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    repository = tmp_path / "small"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch", "main")
    write(repository, ".copier-answers.yml")
    return repository


def on_the_branch(repository: Path) -> None:
    write(repository)
    delete(repository)


def on_a_branch_that_came_and_went(repository: Path) -> None:
    git(repository, "switch", "--quiet", "--create", "side")
    write(repository)
    delete(repository)
    git(repository, "switch", "--quiet", "main")
    write(repository, "other.txt")
    git(repository, "merge", "--quiet", "--no-edit", "side")


def in_a_merge(repository: Path) -> None:
    git(repository, "switch", "--quiet", "--create", "side")
    write(repository)
    git(repository, "switch", "--quiet", "main")
    write(repository, "other.txt")
    git(repository, "merge", "--quiet", "--no-commit", "side")
    git(repository, "rm", "--quiet", "--force", SEED)
    git(repository, "commit", "--quiet", "--message", "Merge without it")


def by_renaming(repository: Path) -> None:
    write(repository)
    git(repository, "mv", SEED, "docs/duty.md")
    commit(repository)


def before_the_service_moved(repository: Path) -> None:
    git(repository, "rm", "--quiet", ".copier-answers.yml")
    for path in (".copier-answers.yml", SEED):
        write(repository, f"services/billing/{path}")
    delete(repository, f"services/billing/{SEED}")
    git(repository, "mv", "services/billing/.copier-answers.yml", ".copier-answers.yml")
    commit(repository)


def behind_a_replaced_commit(repository: Path) -> None:
    on_the_branch(repository)
    write(repository, "other.txt")
    git(repository, "replace", "--graft", "HEAD")


@pytest.mark.parametrize(
    "how",
    [
        on_the_branch,
        on_a_branch_that_came_and_went,
        in_a_merge,
        by_renaming,
        before_the_service_moved,
        behind_a_replaced_commit,
    ],
)
def test_a_deletion_is_found_anywhere_in_the_history(small: Path, how: Callable[[Path], None]) -> None:
    how(small)
    assert find_deleted(Service(small), [SEED, "docs/new.md"]) == {SEED}


def test_a_file_of_the_same_name_in_another_folder_does_not_count(small: Path) -> None:
    write(small, f"archive/{SEED}")
    delete(small, f"archive/{SEED}")
    assert find_deleted(Service(small), [SEED]) == set()


def test_a_migration_is_known_by_its_name_under_any_number(small: Path) -> None:
    folder = "src/billing/migrations/versions/"
    write(small, f"{folder}0007_create_refunds.py")
    delete(small, f"{folder}0007_create_refunds.py")
    seeds = [f"{folder}0003_create_refunds.py", f"{folder}0004_create_orders.py"]
    assert find_deleted(Service(small), seeds) == {seeds[0]}


@pytest.fixture
def deleted(born: Born) -> Path:
    service = born()
    write(service)
    delete(service)
    write(service, "src/billing/later.txt")
    return service


def test_a_shallow_clone_is_refused_and_after_its_completion_updated(deleted: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{deleted}", str(clone))
    before = state(clone)
    with pytest.raises(FleetError, match=f"is a shallow clone, .* whether the team has deleted {SEED}, .* --unshallow"):
        update(clone, Options({}, "v1.1.0", finish=False))
    assert state(clone) == before
    git(clone, "fetch", "--quiet", "--unshallow")
    assert update(clone, Options({}, "v1.1.0", finish=False)).seeds.left == [SEED]


def test_all_services_are_updated_with_their_history_or_refused_by_name(deleted: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{deleted}", str(shallow))
    members = [Member("by-url", f"file://{deleted}"), Member("shallow", str(shallow), is_local=True)]
    updated, refused = update_all(members, tmp_path / "work", RunOptions("v1.1.0", test=False), jobs=2)
    assert (updated.failure, updated.new) == ("", "v1.1.0")
    assert SEED not in git(Path(updated.place), "ls-tree", "-r", "--name-only", updated.tip)
    assert refused.failure.startswith(f"{shallow} is a shallow clone")
