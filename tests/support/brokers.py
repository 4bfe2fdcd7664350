"""Real brokers on free ports of the loopback interface, for tests and for bench/.

    python -m tests.support.brokers kafka    runs one until Ctrl-C, and prints its URL

NATS comes from its wheel, RabbitMQ from Debian's package, Kafka from its jars. Whatever ends this process, kill -9
included, ends the broker.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit
from zipfile import ZipFile

from chassis.dev.embedded import Process, spawn
from chassis.dev.embedded.nats_server import nats_program

from tests.support.tools import TOOLS, call, install_from_debian, one_at_a_time

KAFKA = "4.4.0"
START_TIMEOUT_SECONDS = 400
"""Kafka, which starts in five seconds, once took more than two minutes on a machine with 54 busy processes."""
# not the shared generator, which a test may seed: parallel tests would choose the same ports
_RANDOM = random.SystemRandom()


class Missing(Exception):
    """This machine lacks a part that the broker needs. The message names the part, as the reason to skip a test."""


@dataclass
class Broker:
    """One broker. Between `kill` and `start` it is down, as after kill -9, but keeps its port and its data."""

    url: str
    command: list[str]
    folder: Path
    greeting: bytes
    """The first bytes of a client: a broker that answers them is ready."""
    environment: Mapping[str, str] = field(default_factory=dict)
    secure_url: str | None = None
    """The URL of the same broker with TLS and a password, if it offers that."""
    certificate: Path | None = None
    """The file of the certificate authority for `secure_url`."""
    _process: Process | None = None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is not running"
        return self._process.child.pid

    def start(self) -> None:
        """Start the broker, and wait until it answers."""
        with self.log.open("ab") as output:
            self._process = spawn(
                self.command,
                stop_signal=signal.SIGKILL,  # the data may be lost, and a broker takes long to stop
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env={**os.environ, **self.environment},
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._answers():
            if self._process.child.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.command[0]} did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def end(self) -> None:
        """Stop the broker as its operator would."""
        if self._process is not None:
            self._process.child.terminate()
            self._process.child.wait(START_TIMEOUT_SECONDS)
            self.kill()

    def _answers(self) -> bool:
        address = self.url.rpartition("@")[2].rpartition("/")[2].split(":")
        try:
            with socket.create_connection((address[0], int(address[1])), timeout=2) as connection:
                connection.sendall(self.greeting)
                return bool(connection.recv(1))
        except OSError:
            return False


@contextlib.contextmanager
def nats(folder: Path | None = None, port: int | None = None, *options: str) -> Generator[Broker]:
    """Run NATS with JetStream. `options` are options of the server's command line."""
    port = port or free_port()
    with _home(folder, "nats") as home:
        address = ["--addr", "127.0.0.1", "--port", str(port)]
        storage = ["--jetstream", "--store_dir", str(home / "data")]
        yield from _run(Broker(f"nats://127.0.0.1:{port}", [nats_program(), *address, *storage, *options], home, b""))


@contextlib.contextmanager
def kafka(
    folder: Path | None = None,
    port: int | None = None,
    *,
    advertised_port: int | None = None,
    by_acl: bool = False,
    policy: Path | None = None,
    disk: Path | None = None,
) -> Generator[Broker]:
    """Run one node that is both broker and controller. Raises Missing without Java or Maven.

    `advertised_port` is the port that the broker names to its clients: a link leads from there to `port`. With `by_acl`
    the user of the secure URL has only the rights of ACLs (see kafka_acls); a client without a password has all rights.
    The class in the jar `policy` decides which topics may be created. The folder `disk` gets half of the partitions.
    """
    files = kafka_files()
    port, secure_port = port or free_port(), free_port()
    with _home(folder, "kafka") as home:
        if not (home / "data").exists():
            shutil.copytree(files / "data", home / "data")
        archive = f"-XX:SharedArchiveFile={files / 'classes.jsa'}"
        properties = _kafka_properties(files, home, port, secure_port, advertised_port or port)
        if by_acl:
            text = properties.read_text().replace("if.no.acl.found=true", "if.no.acl.found=false")
            properties.write_text(f"{text}super.users=User:ANONYMOUS\n")
        if policy is not None:
            _change(properties, "create.topic.policy.class.name", policy.stem)
        if disk is not None:
            _change(properties, "log.dirs", f"{home / 'data'},{disk}")
            shutil.copy(home / "data" / "meta.properties", disk)
            _change(disk / "meta.properties", "directory.id", "c2Vjb25kLWRpc2stMDAwMA")
        command = _kafka_command(files, archive, properties, *[policy] if policy else [])
        broker = Broker(f"kafka://127.0.0.1:{port}", command, home, KAFKA_GREETING)
        broker.secure_url = f"kafkas://{KAFKA_USER}:{quote(KAFKA_PASSWORD, safe='')}@127.0.0.1:{secure_port}"
        broker.certificate = files / "certificate.pem"
        yield from _run(broker)


def kafka_acls(broker: Broker, *arguments: str) -> None:
    """Call Kafka's own kafka-acls.sh, with all rights. Raises Missing without Java or Maven."""
    classes = ("-cp", f"{kafka_files() / 'jars'}/*:{kafka_tools()}/*", "org.apache.kafka.tools.AclCommand")
    call("java", "-XX:TieredStopAtLevel=1", *classes, "--bootstrap-server", urlsplit(broker.url).netloc, *arguments)


def kafka_tools() -> Path:
    """Return the folder with the jar of Kafka's command line tools, which need the jars of `kafka_files`, too."""
    tools = TOOLS / f"kafka-tools-{KAFKA}"
    with one_at_a_time("kafka-tools"):
        if not tools.exists():
            artifact = f"-Dartifact=org.apache.kafka:kafka-tools:{KAFKA}"
            call("mvn", "-q", "-B", "dependency:copy", artifact, f"-DoutputDirectory={tools}")
    return tools


def rabbitmqctl(broker: Broker, *arguments: str) -> None:
    """Call RabbitMQ's own rabbitmqctl."""
    names = {**os.environ, **broker.environment}
    program = "/usr/lib/rabbitmq/bin/rabbitmqctl"
    done = subprocess.run([program, *arguments], env=names, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def second_kafka_node(first: Broker) -> Generator[Broker]:
    """Run a second broker in the cluster of the first broker, which is its controller."""
    files = kafka_files()
    port = free_port()
    with _home(None, "kafka") as home:
        shutil.copytree(files / "data", home / "data")
        # A copy of the formatted storage would have the id of the first node.
        _change(home / "data" / "meta.properties", "node.id", "2")
        _change(home / "data" / "meta.properties", "directory.id", "c2Vjb25kLW5vZGUtMDAwMA")
        shutil.copy(first.folder / "server.properties", home)
        for setting, value in (
            ("process.roles", "broker"),
            ("node.id", "2"),
            ("listeners", f"PLAINTEXT://127.0.0.1:{port}"),
            ("advertised.listeners", f"PLAINTEXT://127.0.0.1:{port}"),
            ("log.dirs", str(home / "data")),
        ):
            _change(home / "server.properties", setting, value)
        archive = f"-XX:SharedArchiveFile={files / 'classes.jsa'}"
        command = _kafka_command(files, archive, home / "server.properties")
        yield from _run(Broker(f"kafka://127.0.0.1:{port}", command, home, KAFKA_GREETING))


@contextlib.contextmanager
def rabbitmq(folder: Path | None = None, port: int | None = None) -> Generator[Broker]:
    """Run one node without plugins, in which `guest` has all rights. Raises Missing if RabbitMQ cannot be installed."""
    program = rabbitmq_server()
    port, secure_port, between_nodes, names = port or free_port(), free_port(), free_port(), free_port()
    certificate, key = self_signed()
    with _home(folder, "rabbitmq") as home:
        settings = {
            "listeners.tcp.default": f"127.0.0.1:{port}",
            "listeners.ssl.default": f"127.0.0.1:{secure_port}",
            "ssl_options.certfile": certificate,
            "ssl_options.keyfile": key,
            "max_message_size": 4 * 2**20,  # the default is 128 MiB, and 16 MiB in newer versions
        }
        (home / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (home / "plugins").write_text("[].\n")
        environment = {
            "HOME": str(home),  # this folder has the Erlang cookie
            "RABBITMQ_NODENAME": f"slipway-{port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_DIST_PORT": str(between_nodes),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        # Start Erlang's name server first: the broker would start a name server outside of our process group.
        command = ["sh", "-c", f"epmd & exec {program}"]
        url = f"amqp://guest:guest@127.0.0.1:{port}"
        broker = Broker(url, command, home, b"AMQP\0\0\x09\x01", environment)
        broker.secure_url = f"amqps://guest:guest@127.0.0.1:{secure_port}"
        broker.certificate = certificate
        yield from _run(broker)


BROKERS: dict[str, Callable[..., contextlib.AbstractContextManager[Broker]]] = {
    "nats": nats,
    "kafka": kafka,
    "rabbitmq": rabbitmq,
}


def self_signed() -> tuple[Path, Path]:
    """Make a certificate for the loopback interface and its key, as PEM files. Raises Missing without openssl."""
    if shutil.which("openssl") is None:
        raise Missing("TLS is tested with a certificate that openssl makes, and there is no openssl")
    files = TOOLS / "certificate"
    with one_at_a_time("certificate"):
        if not (files / "certificate.pem").exists():
            files.mkdir(exist_ok=True)
            keys = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650")
            names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
            made = ("-keyout", str(files / "key.pem"), "-out", str(files / "certificate.new"))
            call("openssl", "req", "-x509", *keys, *names, *made)
            (files / "key.pem").chmod(0o644)  # RabbitMQ and NATS may run as another user
            (files / "certificate.new").rename(files / "certificate.pem")
    return files / "certificate.pem", files / "key.pem"


def free_port() -> int:
    """Find a free TCP port that the system does not assign by itself.

    The system may assign a port of the ephemeral range to any outgoing connection while the broker is down, even to a
    connection that the broker's own client opens.
    """
    while True:
        port = _RANDOM.randrange(20000, 32000)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Return whether no process listens on the port now."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _run(broker: Broker) -> Generator[Broker]:
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@contextlib.contextmanager
def _home(folder: Path | None, name: str) -> Generator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as made:
        yield Path(made)


# --- RabbitMQ -------------------------------------------------------------------------------------------------------


def rabbitmq_server() -> str:
    # The program in PATH is of no use: it runs as the user rabbitmq, in the folders of the system's service.
    program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    with one_at_a_time("rabbitmq"):
        if not program.exists():
            if shutil.which("apt-get") is None or os.geteuid() != 0:
                raise Missing("RabbitMQ is not installed, and only root on Debian can do it here: apt-get install it")
            # Run level 1 keeps Debian's package from starting the system's own service.
            install_from_debian("rabbitmq-server", RUNLEVEL="1")
    return str(program)


# --- Kafka ----------------------------------------------------------------------------------------------------------

KAFKA_GREETING = bytes.fromhex("0000000c 0012 0000 00000001 0002 6d65")
"""An ApiVersions request of version 0, as the client `me`."""

JAVA = {"java": "default-jdk-headless", "keytool": "default-jdk-headless", "mvn": "maven"}
"""The programs, with the packages of Debian that contain them."""

KAFKA_USER, KAFKA_PASSWORD = "slipway", "a/b@c"

KAFKA_POM = f"""
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>slipway</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


def kafka_files() -> Path:
    """Make the files of Kafka that are slow to make, once for all starts.

    They are jars, a formatted storage, a certificate, and an archive of loaded classes, which saves most of the time of
    a start.
    """
    if os.geteuid() == 0 and shutil.which("apt-get"):
        for program, package in JAVA.items():
            if shutil.which(program) is None:
                with contextlib.suppress(RuntimeError):
                    install_from_debian(package)
    if missing := [program for program in JAVA if shutil.which(program) is None]:
        raise Missing(f"Kafka needs Java 17 or newer and Maven: there is no {', '.join(missing)}")
    files = TOOLS / f"kafka-{KAFKA}"
    with one_at_a_time("kafka"):
        if not (files / "classes.jsa").exists():
            shutil.rmtree(files, ignore_errors=True)
            files.mkdir()
            (files / "pom.xml").write_text(KAFKA_POM)
            copy = "dependency:copy-dependencies"
            call("mvn", "-q", "-B", "-f", str(files / "pom.xml"), copy, f"-DoutputDirectory={files / 'jars'}")
            _make_certificate(files)
            properties = _kafka_properties(files, files, free_port(), free_port())
            user = f"SCRAM-SHA-512=[name={KAFKA_USER},password={KAFKA_PASSWORD}]"
            format_storage = ("kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "--add-scram", user)
            call("java", "-cp", f"{files / 'jars'}/*", *format_storage, "-c", str(properties))
            _archive_classes(files)
    return files


def _make_certificate(files: Path) -> None:
    store = ("-alias", "kafka", "-keystore", str(files / "keys.p12"), "-storepass", "changeit")
    names = ("-dname", "CN=localhost", "-ext", "SAN=ip:127.0.0.1,dns:localhost")
    call("keytool", "-genkeypair", "-keyalg", "EC", "-validity", "3650", *names, *store)
    call("keytool", "-exportcert", "-rfc", "-file", str(files / "certificate.pem"), *store)


def _archive_classes(files: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        shutil.copytree(files / "data", home / "data")
        archive = f"-XX:ArchiveClassesAtExit={files / 'classes.new'}"
        command = _kafka_command(files, archive, _kafka_properties(files, home, port, free_port()))
        first = Broker(f"kafka://127.0.0.1:{port}", command, home, KAFKA_GREETING)
        first.start()
        first.end()
    (files / "classes.new").rename(files / "classes.jsa")


def _kafka_command(files: Path, archive: str, properties: Path, *jars: Path) -> list[str]:
    memory = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", archive, "-Xshare:auto", "-Xlog:cds=off"]
    logs = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    classes = ":".join([f"{files / 'jars'}/*", *map(str, jars)])
    return ["java", *memory, logs, "-cp", classes, "kafka.Kafka", str(properties)]


def _change(properties: Path, setting: str, value: str) -> None:
    kept = [line for line in properties.read_text().splitlines() if not line.startswith(f"{setting}=")]
    properties.write_text("".join(f"{line}\n" for line in [*kept, f"{setting}={value}"]))


def kafka_jar(folder: Path, name: str, source: str) -> Path:
    """Compile a class for Kafka. Raises Missing without a Java compiler."""
    if shutil.which("javac") is None:
        raise Missing("a class for Kafka needs javac")
    (folder / f"{name}.java").write_text(source)
    call("javac", "-cp", f"{kafka_files() / 'jars'}/*", "-d", str(folder), str(folder / f"{name}.java"))
    with ZipFile(folder / f"{name}.jar", "w") as jar:
        jar.write(folder / f"{name}.class", f"{name}.class")
    return folder / f"{name}.jar"


def _kafka_properties(files: Path, home: Path, port: int, secure_port: int, advertised_port: int | None = None) -> Path:
    controller = free_port()
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": ",".join(
            [
                f"PLAINTEXT://127.0.0.1:{port}",
                f"SASL_SSL://127.0.0.1:{secure_port}",
                f"CONTROLLER://127.0.0.1:{controller}",
            ]
        ),
        "advertised.listeners": ",".join(
            [
                f"PLAINTEXT://127.0.0.1:{advertised_port or port}",
                f"SASL_SSL://127.0.0.1:{secure_port}",
            ]
        ),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "ssl.keystore.location": files / "keys.p12",
        "ssl.keystore.password": "changeit",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "log.dirs": home / "data",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 3,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # After kill -9, the broker admits the node again once the session of the killed node has timed out.
        "broker.session.timeout.ms": 2000,
        "broker.heartbeat.interval.ms": 250,
    }
    path = home / "server.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a broker until Ctrl-C.")
    parser.add_argument("broker", choices=BROKERS)
    parser.add_argument("--folder", type=Path, help="keep its data here (default: gone afterwards)")
    parser.add_argument("--port", type=int)
    chosen = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a program that a script starts in the background ignores SIGINT
    try:
        with contextlib.suppress(KeyboardInterrupt), BROKERS[chosen.broker](chosen.folder, chosen.port) as broker:
            print(broker.url, flush=True)  # noqa: T201
            while True:
                time.sleep(1)  # signal.pause() would miss a signal that arrives just before the call
    except Missing as missing:
        raise SystemExit(str(missing)) from None


if __name__ == "__main__":
    main()
