"""`fleet nudge`: write the issue of each owner to a file, and open an issue in each repository by the Git host's command line."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleet.cache import write_all
from fleet.campaign.issues import Issue, issue, issues, title, title_start
from fleet.campaign.progress import Progress
from fleet.campaign.trackers import Tracker
from fleet.errors import FleetError
from fleet.output import count


@dataclass(frozen=True)
class Opened:
    """The result for one service: the address of its issue, or the reason why no issue was opened."""

    service: str
    line: str
    is_failure: bool = False


def write_issues(progress: Progress, folder: Path) -> dict[Path, Issue]:
    """Write a file for each owner, and remove the files of owners who are done. Raises FleetError."""
    found: dict[Path, Issue] = {}
    for one in issues(progress):
        file, number = folder / one.file_name, 2
        while file in found:  # two owners have one file name if they differ only in characters that become hyphens
            file, number = folder / f"{Path(one.file_name).stem}-{number}.md", number + 1
        found[file] = one
    heading = f"# {title_start(progress)}"
    for file in folder.glob("*.md"):
        if file not in found and file.read_text(encoding="utf-8", errors="replace").startswith(heading):
            file.unlink()
    write_all({file: f"# {one.title}\n\n{one.body}" for file, one in found.items()})
    return found


def describe(file: Path, issue: Issue) -> str:
    return f"{file}: {issue.owner or 'no owner'}, {count(len(issue.parts), 'service')}"


def open_issues(progress: Progress, tracker_of: Callable[[str], Tracker | None]) -> list[Opened]:
    """Open an issue in the repository of each service that has not reached the goal, unless one is open there.

    `tracker_of` gives the tracker for the address of a repository. A failure does not stop the others.
    """
    results = []
    for part in progress.open:
        name, tracker = part.standing.name, tracker_of(part.standing.address)
        if tracker is None:
            why = (
                "its address shows neither GitHub nor GitLab: name its host in [forge] of fleet.toml, or post the file"
            )
            results.append(Opened(name, why, is_failure=True))
            continue
        try:
            if known := tracker.find(title_start(progress)):
                results.append(Opened(name, f"has an open issue: {known}"))
            else:
                body = issue(progress, part.standing.owner, (part,)).body
                results.append(Opened(name, f"opened {tracker.open(title(progress), body)}"))
        except FleetError as error:
            results.append(Opened(name, str(error), is_failure=True))
    return results
