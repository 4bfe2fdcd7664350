"""`fleet up` and the commands for its run: `down`, `logs`, `stop`, `start` and `restart`."""

from pathlib import Path
from typing import NoReturn

import click

from fleet.errors import FleetError
from fleet.options import FLEET, PATH, config_option, format_option


def _complete_name(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """List the services that `fleet up` runs, for the shell."""
    from fleet.up import run_commands

    names = run_commands.names(run_commands.memory(context.params.get("config") or FLEET))
    return [name for name in names if name.startswith(typed)]


_service_argument = click.argument("name", shell_complete=_complete_name)


@click.command()
@click.argument(
    "folders", type=PATH, nargs=-1, help="Checkouts of services. Default: those of fleet.toml that are here."
)
@config_option
@click.option("--only", multiple=True, metavar="NAME", help="Start only this service. Repeatable.")
@click.option("--without", multiple=True, metavar="NAME", help="Start all services but this one. Repeatable.")
@click.option("--around", metavar="NAME", help="Start this service and its neighbours, and stubs for those beyond.")
@click.option("--clone", is_flag=True, help="Clone the services of fleet.toml that have no checkout here, next to it.")
@click.option(
    "--broker-url",
    "urls",
    multiple=True,
    metavar="URL",
    envvar="FLEET_BROKER_URL",
    help="A broker that runs already. Repeatable. FLEET_BROKER_URL hides a password from the list of processes.",
)
@click.option("--fresh", is_flag=True, help="First delete databases, messages, traces and logs of earlier runs.")
@click.option("--keep", is_flag=True, help="Keep the page's traces and log lines of the run before, and of this run.")
@click.option("--otlp", metavar="URL", help="Send spans and metrics to this OTLP/HTTP receiver instead of the page.")
@click.option("--detach", is_flag=True, help="Return once the services have started. `fleet down` ends them.")
@click.option(
    "--status", "only_status", is_flag=True, help="Start nothing, and show the run. Status 1 if a service is not ready."
)
@format_option("table", "json", help="The form of --status.")
def up(
    folders: tuple[Path, ...],
    *,
    config: Path,
    only: tuple[str, ...],
    without: tuple[str, ...],
    around: str | None,
    clone: bool,
    urls: tuple[str, ...],
    fresh: bool,
    keep: bool,
    otlp: str | None,
    detach: bool,
    only_status: bool,
    shown: str,
) -> None:
    """Run the services of a product on this machine, with one database, one broker, one issuer and one page for all.

    This runs the code of the services, as you. Each service runs in its own environment, and restarts after a save. Data and
    logs are in .fleet/ next to fleet.toml. Ctrl-C ends all.
    """
    from fleet.up import command, run_commands
    from fleet.up.product import select

    memory = run_commands.memory(config)
    if only_status:
        raise SystemExit(not run_commands.status(memory, as_json=shown == "json"))
    if around and only:
        raise FleetError("--around chooses the services to start: leave out --only, or name services by --without")
    selection = select(folders, config, only=only, without=without, clone=clone)
    if around:
        from fleet.up.around import around as narrow

        selection = narrow(around, selection, config)
    wanted = command.Wanted(
        selection, memory, command.brokers(urls), fresh, keep, command.receiver(otlp) if otlp else ""
    )
    if detach:
        arguments = [*map(str, folders), f"--config={config}"]
        arguments += [flag for flag, is_given in (("--fresh", fresh), ("--keep", keep)) if is_given]
        lists = {"only": only, "without": without, "around": filter(None, [around]), "otlp": filter(None, [otlp])}
        arguments += [f"--{name}={value}" for name, values in lists.items() for value in values]
        raise SystemExit(not command.detach(wanted, arguments))
    raise SystemExit(not command.up(wanted))


@click.command()
@config_option
def down(*, config: Path) -> None:
    """End the services that `fleet up` runs."""
    from fleet.up import run_commands

    run_commands.down(run_commands.memory(config))


@click.command()
@_service_argument
@config_option
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
def logs(name: str, *, config: Path, follow: bool) -> None:
    """Show what a service has written under `fleet up`."""
    from fleet.up import run_commands

    run_commands.logs(run_commands.memory(config), name, follow=follow)


@click.command()
@_service_argument
@config_option
def stop(name: str, *, config: Path) -> None:
    """Stop a service that `fleet up` runs. Its callers get 503 at once, until `fleet start`."""
    _act("stop", name, config)


@click.command()
@_service_argument
@config_option
def start(name: str, *, config: Path) -> None:
    """Start a service of `fleet up` that was stopped or is broken. Status 1 if the service is not ready then."""
    _act("start", name, config)


@click.command()
@_service_argument
@config_option
def restart(name: str, *, config: Path) -> None:
    """Restart a service that `fleet up` runs, with `make setup` if needed. Status 1 if the service is not ready then."""
    _act("restart", name, config)


def _act(action: str, name: str, config: Path) -> NoReturn:
    from fleet.up import run_commands

    raise SystemExit(not run_commands.act(run_commands.memory(config), action, name))
