"""`messages` shows waiting messages of the outbox and received messages of the inbox, with any text in the messages."""

import asyncio
import dataclasses
import json
from collections.abc import Generator
from typing import Any

import asyncpg
import pytest
from chassis.brokers import BrokerUnavailable
from chassis.brokers.inspection import StreamState
from chassis.messaging import messages_command, overview
from chassis.service import Service
from chassis.telemetry.printable import printable

from tests.chassis.command_line import CommandDesk

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HOSTILE = "a\x1b[2Jb\x9b1mc\nd\u202ee"
"""A text that clears a terminal's screen, starts a line of its own, and reverses the text after it."""


class Desk(CommandDesk):
    command = "messages"

    def as_json(self, *arguments: str) -> dict[str, Any]:
        return json.loads(self("--format", "json", *arguments)[1])

    def run(self, statement: str, *arguments: object) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.url)
            try:
                await connection.execute(statement, *arguments)
            finally:
                await connection.close()

        asyncio.run(run())

    def store(
        self, count: int = 1, *, name: str = "tiny.thing-made.v1", key: str = "k1", rest: str = "NULL, NULL"
    ) -> None:
        columns = "id, kind, aggregatetype, aggregateid, type, payload, traceparent, not_before, waits_for"
        self.run(
            f"""
            INSERT INTO chassis.outbox ({columns})
            SELECT gen_random_uuid(), 'event', 'thing', $1, $2, '{{"number": 1}}', $3, {rest} FROM generate_series(1, $4)
            """,
            key,
            name,
            f"00-{TRACE}-00f067aa0ba902b7-01",
            count,
        )

    def receive(self, count: int, *, ago: str, name: str = "bank.paid.v1") -> None:
        self.run(f"""
            INSERT INTO chassis.inbox (message_id, name, received_at)
            SELECT 'm-' || gen_random_uuid(), '{name}', now() - interval '{ago}' FROM generate_series(1, {count})
        """)


@pytest.fixture
def desk(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Generator[Desk]:
    async def inspect(*_: object) -> list[StreamState]:
        return [
            StreamState("bank-events", messages=5, waiting=2, unacknowledged=1),
            StreamState("tiny-jobs", exists=False),
        ]

    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", "nats://127.0.0.1:4222")
    monkeypatch.setattr(messages_command, "inspect", inspect)
    desk = Desk(service, database_url, capsys)
    yield desk
    desk.run("DELETE FROM chassis.outbox")
    desk.run("DELETE FROM chassis.inbox")


def test_the_overview_shows_outbox_streams_inbox_and_parked_messages(desk: Desk) -> None:
    desk.store(2)
    desk.store(name="tiny.thing-lost.v1", rest="now() + interval '1 day', 'tiny.thing-lost.v1'")
    desk.receive(1, ago="2 hours")
    status, out, err = desk()
    assert (status, err) == (0, "")
    assert "outbox: 3 messages to be sent" in out
    assert "  tiny.thing-made.v1  2 events since " in out
    assert "1 not due yet, 1 held up by a destination that takes nothing" in out
    assert f"key=k1  trace={TRACE}" in out
    assert "  bank-events  5 kept, 2 not received, 1 received and not finished" in out
    assert "  tiny-jobs  does not exist yet" in out
    assert "inbox: 1 message received" in out
    assert "parked: 0 incoming, 0 outgoing" in out
    assert "number" not in out


def test_json_has_the_same_figures(desk: Desk) -> None:
    desk.store(2)
    desk.receive(3, ago="1 minute")
    found = desk.as_json()
    assert [(name["name"], name["messages"]) for name in found["outbox"]["names"]] == [("tiny.thing-made.v1", 2)]
    assert (found["outbox"]["messages"], found["inbox"]["messages"], found["parked"]["incoming"]) == (2, 3, 0)
    assert "body" not in found["outbox"]["first"][0]
    assert found["streams"][0] == dataclasses.asdict(
        StreamState("bank-events", messages=5, waiting=2, unacknowledged=1)
    )


def test_bodies_are_shown_only_on_request(desk: Desk) -> None:
    desk.store()
    assert '{"number": 1}' in desk("--bodies")[1]
    assert desk.as_json("--bodies")["outbox"]["first"][0]["body"] == '{"number": 1}'


def test_text_of_others_reaches_no_terminal_unescaped(desk: Desk) -> None:
    desk.store(name=HOSTILE, key=HOSTILE)
    for arguments in ([], ["--bodies"], ["--format", "json"]):
        out = desk(*arguments)[1]
        assert all(line.isprintable() for line in out.splitlines())
        assert "\\u001b[2Jb\\u009b1mc\\nd\\u202ee" in out


def test_escaped_text_is_the_same_json() -> None:
    text = HOSTILE + "𐀀\U000e0001ž"
    assert json.loads(f'"{printable(text)}"') == text


def test_the_latest_of_the_inbox_come_first_and_no_more_than_the_limit(desk: Desk) -> None:
    desk.receive(3, ago="300 days", name="bank.oldest.v1")
    desk.receive(2, ago="2 days", name="bank.older.v1")
    desk.receive(1, ago="1 second", name="bank.latest.v1")
    names = [row["name"] for row in desk.as_json("--limit", "4")["inbox"]["latest"]]
    assert names == ["bank.latest.v1", "bank.older.v1", "bank.older.v1", "bank.oldest.v1"]


def test_a_large_outbox_is_counted_up_to_a_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "COUNTED", 5)
    desk.store(7)
    out = desk("--limit", "2")[1]
    assert "outbox: 5 messages or more to be sent" in out
    assert out.count(f"trace={TRACE}") == 2


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "ten", "１"])
def test_a_wrong_limit_is_named_with_its_rule(desk: Desk, limit: str) -> None:
    with pytest.raises(SystemExit) as left:
        desk(f"--limit={limit}")
    assert left.value.code == 2
    assert f"'{limit}' is not a number from 1 to 1000" in desk.capsys.readouterr().err


def test_a_broker_that_does_not_answer_leaves_the_rest_readable(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def inspect(*_: object) -> list[StreamState]:
        raise BrokerUnavailable("no\x1b route")

    monkeypatch.setattr(messages_command, "inspect", inspect)
    desk.store()
    status, out, err = desk()
    assert status == 1
    assert "outbox: 1 message to be sent" in out
    assert err == "tiny: the streams are unknown, because the broker does not answer: no\\u001b route\n"


def test_a_missing_broker_url_leaves_the_rest_readable(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKER_URL")
    status, out, err = desk()
    assert (status, "outbox: 0 messages to be sent" in out) == (1, True)
    assert err == "tiny: the streams are unknown, because BROKER_URL is not set\n"


def test_a_database_that_does_not_answer_is_an_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://tiny@127.0.0.1:1/tiny")
    status, out, err = desk()
    assert (status, out) == (1, "")
    assert err.startswith("tiny: ")
