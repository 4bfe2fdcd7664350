"""The processes of the chaos of sagas: workers that kill themselves on an order, and faults that the chaos must find."""

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from chassis.commands import main
from chassis.messaging import inbox
from chassis.messaging.processing import Processor
from chassis.sagas import TimedOut, advance, rows, sweep
from chassis.sagas.run import Run
from chassis.service import Service

SWEEP_SECONDS = 1


def no_row_lock() -> None:
    rows.LOCK = rows.READ


def no_inbox_claim() -> None:
    async def claim(_: Any, identities: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        return set(identities)

    inbox.claim = claim


def forgotten_time_out() -> None:
    wait = Run._wait

    def forget(self: Run, *arguments: Any) -> Any:
        entry = wait(self, *arguments)
        if entry.get("answer") == TimedOut.__name__:
            self.steps.remove(entry)
            self._played -= 1
        return entry

    Run._wait = forget


def no_sweep() -> None:
    async def sweep_nothing(_: sweep.Sweep) -> int:
        return 0

    sweep.Sweep.sweep = sweep_nothing


def undo_in_wrong_order() -> None:
    pending = advance.pending_undos
    advance.pending_undos = lambda run: pending(run)[::-1]


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__.replace("_", "-"): mutant
    for mutant in (no_row_lock, no_inbox_claim, forgotten_time_out, no_sweep, undo_in_wrong_order)
}


def die_after_a_commit(order: Path) -> None:
    """Kill this process if the file is there: the effect of a message is committed, and the broker will redeliver it."""
    process = Processor._in_one_transaction

    async def process_and_die(self: Processor, *batch: Any, **options: Any) -> None:
        await process(self, *batch, **options)
        obey()

    def obey() -> None:
        if order.exists():
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    Processor._in_one_transaction = process_and_die


def worker(service: Service) -> int:
    """Run the command line of the service as the environment asks for it: with a mutant, and with an order to die."""
    if name := os.environ.get("MUTANT"):
        MUTANTS[name]()
    sweep.SWEEP_SECONDS = SWEEP_SECONDS
    die_after_a_commit(Path(os.environ["DIE_ORDER"]))
    return main(service)
