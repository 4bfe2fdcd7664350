"""The command line of a service: `python -m <service> COMMAND`, as `--help` lists the commands.

A service adds commands of its own in `Service.commands`.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import chassis
import chassis.quick_imports
from chassis.discovery import has_module
from chassis.messages import DEFAULT_QUEUE
from chassis.service import Service
from chassis.settings import BrokerSettings, CommandSettings, S, Settings, SettingsError, read


class _Command(NamedTuple):
    """A command in a module of its own, which is imported only for this command.

    The module has `run(service, settings, options)`, which returns the exit status, and `add_arguments(parser, service)`.
    """

    module: str
    help: str
    settings: type[Settings] | type[CommandSettings] | None = None
    parser: Mapping[str, Any] = {}


_COMMANDS = {
    "parked": _Command(
        "chassis.messaging.parked_command", "list, show, replay or drop the messages that failed", CommandSettings
    ),
    "republish": _Command(
        "chassis.messaging.republish_command",
        "publish the current state again, for a new consumer",
        CommandSettings,
    ),
    "messages": _Command(
        "chassis.messaging.messages_command",
        "show what is in the outbox, in the broker and in the inbox",
        BrokerSettings,
    ),
    "sagas": _Command(
        "chassis.messaging.sagas_command",
        "list, show, retry, abandon or export the sagas of this service",
        CommandSettings,
    ),
    "specs": _Command(
        "chassis.dev.specs",
        "write specs/: the API document, the message document and a schema for each message",
    ),
    "token": _Command("chassis.dev.issuer", "print an access token of the issuer that `make dev` runs"),
    # All arguments go to psql, so this command has no options of its own.
    "psql": _Command(
        "chassis.dev.psql",
        "open psql on the service's database",
        CommandSettings,
        {"prefix_chars": "\0", "add_help": False},
    ),
    "shell": _Command(
        "chassis.dev.shell",
        "open a Python prompt with the service's database, settings and use cases",
        CommandSettings,
    ),
    "dev": _Command("chassis.dev.server", "run a database, the migrations and the service, which reloads on change"),
}


def main(service: Service, arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 success, 1 failure, 2 wrong usage or settings."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(service, arguments).parse_args(arguments)
    try:
        return _run(service, options)
    except SettingsError as error:
        print(f"{service.name} cannot start:\n{error}", file=sys.stderr)
        return 2


def _parser(service: Service, arguments: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {service.package.__name__}", description=service.description)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer HTTP requests until SIGTERM or Ctrl-C")
    work = commands.add_parser("work", help="send and consume messages until SIGTERM or Ctrl-C")
    if service.messages.queues:
        work.add_argument(
            "--queue",
            action="append",
            dest="queues",
            default=[],
            choices=[DEFAULT_QUEUE, *service.messages.queues],
            help=f"process the jobs of this queue alone (repeatable); {DEFAULT_QUEUE} also sends messages and takes events",
        )
    migrate = commands.add_parser("migrate", help="bring the database to the newest revision")
    migrate.add_argument(
        "--check", action="store_true", help="compare the migrations with the models, on a temporary server"
    )
    revision = commands.add_parser(
        "revision", help="write the next migration, from the differences between database and models"
    )
    revision.add_argument("-m", "--message", required=True, help="a few words on the change")
    for name, command in _COMMANDS.items():
        if has_module(command.module) and (name != "token" or service.auth is not None):
            own = commands.add_parser(name, help=command.help, **command.parser)
            if arguments[:1] == [name]:
                import_module(command.module).add_arguments(own, service)
        elif arguments[:1] == [name]:
            parser.error(f"invalid choice: {name!r}: {chassis.why_left_out(command.module)}")
    for name, command in service.commands.items():
        if name in commands.choices:
            raise ValueError(f"the command {name!r} of {service.name} is one of the chassis too: give it another name")
        commands.add_parser(name, help=(command.__doc__ or "").strip().partition("\n")[0])
    return parser


def _run(service: Service, options: argparse.Namespace) -> int:
    match options.command:
        case "serve":
            return _serve(service)
        case "work":
            return _work(service, getattr(options, "queues", []))
        case "migrate":
            return _check_migrations(service) if options.check else _migrate(service)
        case "revision":
            return _revision(service, options.message)
        case name if name in _COMMANDS:
            command = _COMMANDS[name]
            settings = command.settings and _settings(command.settings)
            return import_module(command.module).run(service, settings, options)
        case name:
            return asyncio.run(_own(service, name, _settings(service.settings)))


def _settings(kind: type[S]) -> S:
    """Read the settings of a command. If the environment names no database, it uses the servers of `make dev`."""
    if not os.environ.get("DATABASE_URL"):
        from chassis.dev import servers_file

        servers_file.use()
    return read(kind)


async def _own(service: Service, name: str, settings: Settings) -> int:
    """Run a command of the service's own, with the logs, the telemetry and the pool of its application."""
    import structlog

    app = service.create_app(settings.model_copy(update={"run_worker": False}))
    log = structlog.get_logger()
    async with app.router.lifespan_context(app):
        with app.state.telemetry.tracer.start_as_current_span(f"command {name}"):
            try:
                await service.commands[name](app.state.database)
            except Exception as error:
                log.error("command_failed", command=name, exc_info=error)
                return 1
            log.info("command_succeeded", command=name)
            return 0


def _serve(service: Service) -> int:
    from chassis.web.server import serve

    settings = read(service.settings)
    for issuer in getattr(settings, "oidc_issuer", "").split():
        if issuer.rstrip("/").endswith("/development-issuer"):
            raise SettingsError(
                f"  OIDC_ISSUER: {issuer} is the issuer of `make dev`, from which everybody obtains any token"
            )
    return 0 if serve(service.create_app(settings)) else 1


def _work(service: Service, queues: Sequence[str]) -> int:
    from chassis.application import worker
    from chassis.web.server import serve

    settings = read(service.settings)
    queues = ["" if queue == DEFAULT_QUEUE else queue for queue in queues]
    if not service.messages and not service.broker:
        print(
            f"{service.name} sends and consumes no messages, so `work` has nothing to do: remove the worker.",
            file=sys.stderr,
        )
        return 2
    return 0 if serve(worker(service, settings, queues=queues), drain=False) else 1


def _migrate(service: Service) -> int:
    from chassis.database import migrate
    from chassis.telemetry import logs

    settings = _settings(CommandSettings)
    logs.configure(format=settings.log_format, level=settings.log_level, service=service.name)
    try:
        migrate.upgrade(service, settings.database_url.get_secret_value())
    except (migrate.DatabaseUnusable, migrate.MigrationFailed) as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        return 1
    return 0


def _check_migrations(service: Service) -> int:
    from chassis.database import migrate
    from chassis.dev import embedded

    with embedded.temporary_postgres() as url:
        try:
            migrate.upgrade(service, url)
            migrate.check(service, url)
        except migrate.MigrationFailed as error:
            print(error, file=sys.stderr)
            return 1
        except migrate.MigrationsBehind as error:
            print(f"The tables in persistence/ and the migrations differ: {error}", file=sys.stderr)
            print(
                'Write the migration: make migration m="what it does". Or edit the newest one, if it is not released yet.',
                file=sys.stderr,
            )
            return 1
    return 0


def _revision(service: Service, message: str) -> int:
    from chassis.database import migrate
    from chassis.dev import embedded

    with embedded.temporary_postgres() as url:
        migrate.upgrade(service, url)
        written = migrate.write_next(service, url, message)
    for path in written:
        print(
            f"Wrote {path}. Read the file, and edit it if needed: `make dev` applies it, at once if it runs, and again "
            "after an edit. `make migrate` applies it to DATABASE_URL."
        )
    return 0
