"""`fleet update-all`: update and test each listed service on a branch of its own, in clones next to fleet.toml.

Even a repository on this machine is cloned, so that nobody's checkout is touched. Each step is recorded, so that a run that
failed or was stopped continues there.
"""

import fcntl
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from fleet.cache import write_atomically
from fleet.errors import FleetError
from fleet.processes.parallel import default_jobs
from fleet.processes.programs import Programs, wait_for_programs
from fleet.progress import progress
from fleet.service.fleet_toml import Member
from fleet.update.clone import Clone
from fleet.update.outcomes import Outcome, Outcomes, RunOptions
from fleet.update.update_all_steps import Steps
from fleet.update.worktree import open_file, termination_as_interrupt

# The folder is next to fleet.toml.
FOLDER = ".fleet-update"


def update_all(members: list[Member], folder: Path, options: RunOptions, jobs: int | None = None) -> list[Outcome]:
    """Update all members, and return their outcomes in the same order.

    `folder` keeps clones, logs and outcomes. Raises FleetError if another run uses the folder.
    """
    folder = folder.resolve()
    results: dict[Member, Outcome] = {}
    with (
        _lock(folder) as lock,
        progress("updating", len(members)) as step,
        termination_as_interrupt(),
        Programs(lock) as programs,
        ThreadPoolExecutor(jobs or default_jobs()) as threads,
    ):
        outcomes = Outcomes(folder / "state.json")
        asked = {threads.submit(Steps(Clone(one, folder, programs), options, outcomes).run): one for one in members}
        try:
            for future in as_completed(asked):
                results[asked[future]] = future.result()
                step()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            programs.stop()
            raise
    return [results[member] for member in members]


@contextmanager
def _lock(folder: Path) -> Generator[int]:
    """Lock the folder, and yield the file descriptor of a second lock, for the programs of this run. Raises FleetError.

    The second lock shows whether programs of a killed run still work in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / ".gitignore", "*\n")
    with open_file(folder / "lock") as lock, open_file(folder / "programs.lock") as programs:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FleetError(f"another fleet update-all is running in {folder}") from None
        if not wait_for_programs(programs.fileno()):
            raise FleetError(
                f"programs that a killed fleet update-all has started still run in {folder}: end them, then run fleet again"
            )
        yield programs.fileno()
