"""`python -m <service> psql`: open PostgreSQL's terminal on the service's database."""

import argparse
import os
import shutil
import sys
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from chassis.dev import embedded
from chassis.service import Service
from chassis.settings import CommandSettings


def add_arguments(parser: argparse.ArgumentParser, _: Service) -> None:
    parser.add_argument("arguments", nargs="*")


def run(service: Service, settings: CommandSettings, options: argparse.Namespace) -> int:
    """Replace this process by psql, which gets the arguments. Returns 1 if there is no psql.

    The password goes through the environment, because other users of the machine can read a command line.
    """
    program = embedded.postgres_program("psql") or shutil.which("psql")
    if program is None:
        print("There is no psql: install the dev dependencies (`make setup`), or PostgreSQL's client.", file=sys.stderr)
        return 1
    parts = urlsplit(settings.database_url.get_secret_value())
    credentials, at, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    parameters = dict(parse_qsl(parts.query))
    password = unquote(password) or parameters.pop("password", "")
    query = urlencode(parameters, quote_via=quote)
    # geturl() would omit the slashes before an empty host, and psql would take the rest for the name of a database.
    without_password = f"{parts.scheme}://{user}{at}{hosts}{parts.path}{'?' if query else ''}{query}"
    environment = dict(os.environ) | ({"PGPASSWORD": password} if password else {})
    return os.execve(program, [program, without_password, *options.arguments], environment)
