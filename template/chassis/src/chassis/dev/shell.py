"""`python -m <service> shell`: a Python prompt with `await`, the service's database, its settings and its use cases."""

import argparse
import ast
import asyncio
import code
import contextlib
import inspect
import sys
import threading
import traceback
from collections.abc import Generator
from importlib import import_module
from pkgutil import iter_modules
from types import CodeType, FunctionType, ModuleType
from typing import Any
from urllib.parse import urlsplit

from chassis.database import Database, DatabaseUnavailable
from chassis.discovery import modules_in
from chassis.http import new_id, utc_now
from chassis.service import Service
from chassis.settings import CommandSettings, SettingsError, read
from chassis.telemetry import logs

EXAMPLES = """\
  async with unit_of_work() as uow:      # a transaction, which commits at the end of the block
      await usecases...                  # Tab completes names in a terminal
  await database.fetch("SELECT 1")       # SQL"""


def add_arguments(parser: argparse.ArgumentParser, _: Service) -> None:
    """Add nothing: the command has no arguments."""


def run(service: Service, settings: CommandSettings, _: argparse.Namespace) -> int:
    """Open the prompt until Ctrl-D. Input that is no terminal runs as a script. Returns 1 if there is no database."""
    logs.configure(format=settings.log_format, level=settings.log_level, service=service.name)
    with _loop() as loop:
        database = _database(service, settings)
        try:
            asyncio.run_coroutine_threadsafe(database.__aenter__(), loop).result()
            asyncio.run_coroutine_threadsafe(database.execute("SELECT 1"), loop).result()
        except DatabaseUnavailable as error:
            print(f"{service.name}: {error}", file=sys.stderr)
            return 1
        try:
            names = _names(service, settings, database)
            console = _Console(names, loop)
            if not sys.stdin.isatty():
                return console.run_script(sys.stdin.read())
            _complete(names)
            console.interact(banner=_banner(service, settings, names), exitmsg="")
        finally:
            asyncio.run_coroutine_threadsafe(database.__aexit__(None, None, None), loop).result()
    return 0


@contextlib.contextmanager
def _loop() -> Generator[asyncio.AbstractEventLoop]:
    """Run an event loop in another thread: tasks go on while the prompt waits, and Ctrl-C reaches the prompt."""
    loop = asyncio.new_event_loop()
    closing = threading.Event()

    def serve() -> None:
        while not closing.is_set():
            # asyncio gives these two errors of a task to the code that awaits the task, and also raises them here.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        closing.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _database(service: Service, settings: CommandSettings) -> Database:
    outbox = None
    if service.messages:
        from chassis.messaging.outbox import Outbox  # a service without messages lacks this module

        outbox = Outbox(service.messages)
    return Database(
        settings.database_url,
        pool_size=2,
        name=f"{service.name}-shell",
        command_timeout_seconds=settings.message_timeout_seconds,
        outbox=outbox,
        transaction_pooler=settings.database_transaction_pooler,
        versions=service.versions,
    )


def _names(service: Service, settings: CommandSettings, database: Database) -> dict[str, Any]:
    """Return the names that the prompt starts with."""
    try:
        of_the_service: object = read(service.settings)
    except SettingsError:
        of_the_service = settings  # this environment lacks some settings of the service
    return _layers(service.package) | {
        "service": service,
        "settings": of_the_service,
        "database": database,
        "unit_of_work": database.unit_of_work,
        "utc_now": utc_now,
        "new_id": new_id,
    }


def _layers(package: ModuleType) -> dict[str, ModuleType]:
    """Import all modules of the service, except migrations, and return its packages by their names."""
    names = [found.name for found in iter_modules(package.__path__) if found.ispkg and found.name != "migrations"]
    layers = {name: import_module(f"{package.__name__}.{name}") for name in names}
    for layer in layers.values():
        list(modules_in(layer))
    return layers


def _banner(service: Service, settings: CommandSettings, names: dict[str, Any]) -> str:
    parts = urlsplit(settings.database_url.get_secret_value())
    address = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"{service.name} on {address}, with {', '.join(names)}\n\n{EXAMPLES}\n"


def _complete(names: dict[str, Any]) -> None:
    with contextlib.suppress(ImportError):  # not every Python has readline
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        edits_with_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if edits_with_libedit else "tab: complete")


class _Console(code.InteractiveConsole):  # noqa: TID251
    """A prompt whose statements run in the event loop."""

    def __init__(self, names: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(names)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._loop = loop

    def run_script(self, source: str) -> int:
        """Run statements without a prompt. Returns the exit status. Raises SystemExit and KeyboardInterrupt."""
        try:
            script = compile(source, "<stdin>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            asyncio.run_coroutine_threadsafe(self._run(script), self._loop).result()
        except Exception:
            traceback.print_exc()
            return 1
        return 0

    def runcode(self, code: CodeType) -> None:
        running = asyncio.run_coroutine_threadsafe(self._run(code), self._loop)
        try:
            running.result()
        except SystemExit:
            raise
        except KeyboardInterrupt:
            running.cancel()
            self.write("KeyboardInterrupt\n")
        except BaseException:
            self.showtraceback()

    async def _run(self, code: CodeType) -> None:
        result = FunctionType(code, self.locals)()
        if inspect.iscoroutine(result):
            await result
