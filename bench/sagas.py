"""Measure sagas: a backlog of orders next to Absurd and DBOS, and the cost of sagas that wait.

`make bench-sagas`, or `make bench-sagas ARGS="--workers 3 --sagas 600"`. The orders are the orders of tests/service/chaos, with steps
that take no time: reserve stock, request payment from another service, wait for its answer, confirm. All orders are stored
before the workers start, and the time counts from the first effect to the last order's end. Rounds of the chassis, on NATS, and of
the engines in bench/engines alternate on one PostgreSQL. Then `--waiting` sagas wait for an answer for days: the output shows the
rate of a backlog next to them, the start of a worker, the size of the table, and each statement of the sweep.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from chassis.dev.embedded import temporary_postgres

from bench.engines import absurd_orders, dbos_orders
from bench.engines.chassis_orders import ChassisOrders
from bench.engines.measure import Measured
from bench.engines.other_orders import OtherOrders
from tests.support import brokers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sagas", type=int, default=600, help="the backlog (default %(default)s)")
    parser.add_argument("--workers", type=int, default=3, help="workers that run sagas (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--waiting", type=int, default=100_000, help="sagas that wait (default %(default)s)")
    options = parser.parse_args()
    with temporary_postgres() as server, brokers.BROKERS["nats"]() as broker, tempfile.TemporaryDirectory() as folder:
        chassis = ChassisOrders(server, broker.url, Path(folder), options.workers)
        absurd, dbos = (
            OtherOrders(module, server, Path(folder), options.workers) for module in (absurd_orders, dbos_orders)
        )
        programs = {"chassis": chassis.backlog, "Absurd": absurd.backlog, "DBOS": dbos.backlog}
        print(f"{options.sagas} sagas, {options.workers} workers, medians of {options.rounds} rounds:")
        compare(programs, options.sagas, options.rounds)
        measure_waiting(chassis, options.waiting, options.sagas, options.rounds)


def compare(programs: dict[str, Callable[[int], Measured]], sagas: int, rounds: int) -> None:
    """Let the programs take turns, and show the rates as multiples of the first program's rate."""
    found: dict[str, list[Measured]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, backlog in programs.items():
            found[name].append(backlog(sagas))
    medians = {name: Measured(*map(median, zip(*rounds, strict=True))) for name, rounds in found.items()}
    first = next(iter(medians.values()))
    for name, measured in medians.items():
        print(
            f"  {name}: {measured.rate:,.0f} a minute, {measured.cpu:.1f} ms of CPU of the workers for each; "
            f"ratio of rates {first.rate / measured.rate:.2f}, of CPU {measured.cpu / first.cpu:.2f}"
        )


def measure_waiting(chassis: ChassisOrders, waiting: int, sagas: int, rounds: int) -> None:
    programs: dict[str, Callable[[int], Measured]] = {
        "alone": chassis.backlog,
        f"next to {waiting:,} sagas that wait": lambda count: chassis.backlog(count, waiting=waiting),
    }
    compare(programs, sagas, rounds)
    for each in (0, waiting):
        seconds = median(chassis.started(waiting=each) for _ in range(rounds))
        print(f"start of a worker, {each:,} sagas wait: {seconds:.2f} s")
    asyncio.run(chassis.show_waiting(waiting))


if __name__ == "__main__":
    main()
