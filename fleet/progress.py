"""Show progress on stderr: a bar on a terminal, a line now and then in a log. Stdout is for the result."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from fleet import output

# The most lines in a log.
LINES = 10


@contextmanager
def progress(activity: str, total: int) -> Generator[Callable[[], None]]:
    """Provide a function to call after each of `total` steps. Without an activity nothing is shown."""
    if not activity or not total:
        yield lambda: None
        return
    console = output.console(stderr=True)
    if console.is_terminal:
        # Imported here, because only a terminal needs it.
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(activity, total=total)
            yield lambda: bar.advance(task)
        return
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done * LINES // total > (done - 1) * LINES // total:
            console.print(f"{activity}: {done} of {total}", soft_wrap=True)

    yield step
