"""A convention that a policy announces, a fleet that has it, and the reports of that fleet."""

from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

from fleet.conventions import Convention, Problem
from fleet.errors import FleetError
from fleet.main import app
from fleet.service.service import Service

DAY = "2027-03-01"


class CostCentre(Convention):
    """Finance asks who pays for what runs."""

    id = "acme-cost-centre"
    remedy = "write the cost centre into catalog-info.yaml"

    def check(self, service: Service) -> Iterator[Problem]:
        if "cost-centre" not in service.text("catalog-info.yaml"):
            yield Problem("catalog-info.yaml", "no cost centre", 1)


PHASED = f'[conventions]\nacme-cost-centre = {{ level = "error", from = {DAY} }}\n'
MATURITY = '[[maturity]]\nname = "bronze"\nconventions = ["acme-cost-centre"]\n'


def fleet_of(folder: Path, policy: str, *services: Path) -> tuple[str, str]:
    """Write fleet.toml and a policy next to it, and return the option that names the fleet."""
    (folder / "fleet.toml").write_text("".join(f'[[service]]\npath = "{service}"\n' for service in services))
    (folder / "policy.toml").write_text(policy)
    return "--config", str(folder / "fleet.toml")


def report(*arguments: str, status: int = 0) -> str:
    """Run `fleet` with these arguments, and return what it prints on stdout, or the sentence of its refusal."""
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, FleetError):
        assert status == 1, done.exception
        return str(done.exception)
    assert done.exit_code == status, (done.output, done.exception)
    return done.stdout
