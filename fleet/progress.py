"""How far it is: a bar for people at a terminal, a line now and then in a log. On stderr: stdout is for the result."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from fleet import output

# In a log, so many lines at most.
LINES = 10


@contextmanager
def progress(doing: str, total: int) -> Generator[Callable[[], None]]:
    """Gives a function to call after each of `total` steps. Says nothing if there is nothing to say it is doing."""
    if not doing or not total:
        yield lambda: None
        return
    console = output.console(stderr=True)
    if console.is_terminal:
        # Here, because nobody else waits for its import.
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(doing, total=total)
            yield lambda: bar.advance(task)
        return
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done * LINES // total > (done - 1) * LINES // total:
            console.print(f"{doing}: {done} of {total}", soft_wrap=True)

    yield step
