"""Make the example product: generate each service from its answers, add its team's files, install it. `make example` runs it.

examples/shop/<service>/ has the answers and the team's files. Everything else is made here, so that it is never old: the
services by Copier, the clients of neighbours by `fleet client`, and specs/ by `make setup`.
"""

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from demo.service import ROOT, DemoFailed, DemoService, run
from fleet.up.memory import Memory
from tests.support.leftovers import clean_up_after_this_process
from tests.support.services import lend_packages

SHOP = Path(__file__).parent / "shop"
BUILD = ROOT / "build" / "shop"
LENDER = ROOT / "build" / "demo" / "billing"
"""The service of `make demo`. Its packages are compiled already, which saves a third of the time."""

SERVICES = ("payments", "inventory", "orders", "notifications", "storefront")
"""A neighbour comes before the services that call it, because `fleet client` reads its API document."""

CALLS = {"storefront": ("orders", "create_purchase")}
"""The neighbour that a service calls, and the operation, as for `fleet client`."""

CALLER = """---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {service}-from-{caller}
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: {service}
      app.kubernetes.io/component: http
  policyTypes: [Ingress]
  ingress:
    - from:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: {caller}-{overlay}
          podSelector:
            matchLabels:
              app.kubernetes.io/name: {caller}
      ports:
        - port: http
"""
"""The policy with which a neighbour's team lets a caller in, as docs/how-to/call-another-service.md has it."""


def main() -> int:
    clean_up_after_this_process()
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
    """Make all services, and the fleet.toml that lists them. Return the new places of copies that somebody has changed.

    Raises DemoFailed.
    """
    if Memory(folder / ".fleet").running():
        raise DemoFailed(
            f"`fleet up` runs the services in {folder}: end it by `fleet down --config {folder}/fleet.toml`"
        )
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
    if (LENDER / ".venv/.ready").exists() and not (service.folder / ".venv").exists():
        lend_packages(LENDER, service.folder)
    for caller, (neighbour, _) in CALLS.items():
        if neighbour == service.name:
            _let_in(service.folder, caller)
    if service.name not in CALLS:
        service.install()
        return
    neighbour, operation = CALLS[service.name]
    made[neighbour].result()
    fleet = [sys.executable, "-m", "fleet"]
    run([*fleet, "client", neighbour, operation, "--from", f"../{neighbour}"], cwd=service.folder, PYTHONPATH=str(ROOT))
    _declare(service.folder, neighbour)
    service.install()
    run([*fleet, "peers"], cwd=service.folder, PYTHONPATH=str(ROOT))
    service.commit("--amend")


def _declare(folder: Path, neighbour: str) -> None:
    """Name the neighbour in the catalogue."""
    catalogue, line = folder / "catalog-info.yaml", "  providesApis:"
    catalogue.write_text(catalogue.read_text().replace(line, f"  consumesApis: [{neighbour}]\n{line}", 1))


def _let_in(folder: Path, caller: str) -> None:
    """Let the pods of a caller in, in each overlay."""
    for peers in folder.glob("deploy/overlays/*/peers.yaml"):
        policy = CALLER.format(service=folder.name, caller=caller, overlay=peers.parent.name)
        peers.write_text(peers.read_text() + policy)


if __name__ == "__main__":
    raise SystemExit(main())
