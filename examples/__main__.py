"""Make the example product: generate each service from its answers, add its team's files, install it. `make example` runs it.

examples/shop/<service>/ has the answers and the team's files. Everything else is made here, so that it is never old: the
services by Copier, the clients of neighbours by `fleet client`, and specs/ by `make setup`.
"""

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from demo.service import ROOT, DemoFailed, DemoService, run

SHOP = Path(__file__).parent / "shop"
BUILD = ROOT / "build" / "shop"
SERVICES = ("payments", "inventory", "orders", "notifications", "storefront")
"""A neighbour comes before the services that call it, because `fleet client` reads its API document."""

CALLS = {"orders": ("payments", "create_charge"), "storefront": ("orders", "create_purchase")}
"""The neighbour that a service calls, and the operation, as for `fleet client`."""


def main() -> int:
    try:
        for kept in make_product(BUILD):
            print(f"Kept your changed copy as {kept}")
    except KeyboardInterrupt:
        return 130
    except DemoFailed as error:
        print(f"the example was not made: {error}", file=sys.stderr)
        return 1
    print("`.venv/bin/fleet up --config build/shop/fleet.toml` runs it, with --fresh for empty databases")
    return 0


def make_product(folder: Path) -> list[str]:
    """Make all services, and the fleet.toml that lists them. Return the new places of copies that somebody has changed."""
    services = {name: DemoService(name, SHOP / name / "answers.yml", SHOP / name, folder) for name in SERVICES}
    kept = [place for service in services.values() if (place := service.make_room())]
    folder.mkdir(parents=True, exist_ok=True)
    entries = [f'[[service]]\npath = "{name}"\n' for name in sorted(SERVICES)]
    (folder / "fleet.toml").write_text("\n".join(entries))
    made: dict[str, Future[None]] = {}
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as workers:
        try:
            for name, service in services.items():
                made[name] = workers.submit(_make, service, made)
            for each in made.values():
                each.result()
        finally:
            workers.shutdown(cancel_futures=True)
    return kept


def _make(service: DemoService, made: dict[str, Future[None]]) -> None:
    service.generate()
    if service.name in CALLS:
        neighbour, operation = CALLS[service.name]
        made[neighbour].result()
        fleet = [sys.executable, "-m", "fleet", "client"]
        run([*fleet, neighbour, operation, "--from", f"../{neighbour}"], cwd=service.folder, PYTHONPATH=str(ROOT))
    service.install()


if __name__ == "__main__":
    raise SystemExit(main())
