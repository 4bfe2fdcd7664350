"""`python -m <service> psql`: open PostgreSQL's terminal on the service's database."""

import os
import shutil
import sys
from urllib.parse import unquote, urlsplit

from chassis.dev import embedded


def run(url: str, arguments: list[str]) -> int:
    """Replace this process by psql. `arguments` go to psql. Returns 1 if there is no psql.

    The password goes through the environment, because other users of the machine can read a command line.
    """
    program = embedded.postgres_program("psql") or shutil.which("psql")
    if program is None:
        print("There is no psql: install the dev dependencies (`make setup`), or PostgreSQL's client.", file=sys.stderr)
        return 1
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    without_password = parts._replace(netloc=f"{user.partition(':')[0]}@{host}" if user else host).geturl()
    environment = dict(os.environ)
    if parts.password:
        environment["PGPASSWORD"] = unquote(parts.password)
    return os.execve(program, [program, without_password, *arguments], environment)
