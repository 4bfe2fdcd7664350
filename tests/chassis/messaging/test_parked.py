"""`parked list | show | replay | drop`: a person sees the parked messages, and no message leaves unseen."""

import asyncio
import dataclasses
import json
from collections.abc import Generator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from chassis.brokers import Kind, Message
from chassis.database import UnitOfWork
from chassis.messages import Messages, OnJob
from chassis.messaging import parking
from chassis.service import Service

from tests.chassis import tiny_messages
from tests.chassis.command_line import CommandDesk

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Desk(CommandDesk):
    command = "parked"

    def ask(self, query: str, *arguments: Any) -> Any:
        async def ask() -> Any:
            connection = await asyncpg.connect(self.url)
            try:
                return await connection.fetch(query, *arguments)
            finally:
                await connection.close()

        return asyncio.run(ask())

    def park(self, body: str = '{"number": 1}', *, name: str = "bank.paid.v1", direction: str = "incoming") -> UUID:
        message = Message(
            Kind.EVENT, name, str(uuid4()), "a", body.encode(), {"traceparent": TRACE, "subject": "user-17"}
        )

        async def park() -> None:
            connection = await asyncpg.connect(self.url)
            try:
                await parking.park(connection, message, direction=direction, reason="RuntimeError: no", attempts=5)
            finally:
                await connection.close()

        asyncio.run(park())
        return self.ask("SELECT id FROM chassis.parked WHERE message_id = $1", message.id)[0][0]

    def left(self) -> list[UUID]:
        return [row[0] for row in self.ask("SELECT id FROM chassis.parked ORDER BY parked_at")]


@pytest.fixture
def desk(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Generator[Desk]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("LOG_FORMAT", "console")
    desk = Desk(service, database_url, capsys)
    desk.ask(tiny_messages.EFFECTS)
    yield desk
    desk.ask("DROP TABLE effects")
    desk.ask("DELETE FROM chassis.parked")
    desk.ask("DELETE FROM chassis.outbox")


def test_list_has_a_line_for_each_the_longest_parked_first(desk: Desk) -> None:
    first, second = desk.park(), desk.park(name="bank.refunded.v1")
    status, out, _ = desk("list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [str(first), str(second)]
    assert out.splitlines()[0].endswith("incoming  bank.paid.v1  RuntimeError: no")
    assert desk("list", "--name", "bank.refunded.v1")[1].split()[0] == str(second)
    (listed,) = json.loads(desk("list", "--name", "bank.refunded.v1", "--format", "json")[1])
    assert (listed["id"], listed["name"], listed["direction"]) == (str(second), "bank.refunded.v1", "incoming")
    assert set(listed) == {"id", "parked_at", "direction", "name", "reason"}


def test_list_says_that_there_is_nothing_or_more(desk: Desk) -> None:
    assert desk("list") == (0, "", "Nothing is parked.\n")
    assert desk("list", "--format", "json") == (0, "[]\n", "")
    desk.park()
    desk.park()
    _, out, err = desk("list", "--limit", "1")
    assert (len(out.splitlines()), "first 1" in err) == (1, True)


def test_show_has_everything_that_is_known(desk: Desk) -> None:
    parked = desk.park('{"number": "wrong"}')
    status, out, _ = desk("show", str(parked))
    told = json.loads(out)
    assert status == 0
    assert (told["id"], told["name"], told["attempts"]) == (str(parked), "bank.paid.v1", 5)
    assert (told["reason"], told["body"]) == ("RuntimeError: no", '{"number": "wrong"}')
    assert told["headers"] == {"traceparent": TRACE, "subject": "user-17"}


def test_text_of_senders_reaches_no_terminal_unescaped(desk: Desk) -> None:
    hostile = "bank\x1b[2J\x9b1m\u202e.v1"
    parked = desk.park(f'{{"number": "{hostile}"}}', name=hostile)
    for action in (["list"], ["show", str(parked)], ["replay", str(parked)], ["drop", str(parked)]):
        _, out, err = desk(*action)
        assert all(line.isprintable() for line in (out + err).splitlines())
        assert "bank\\u001b[2J\\u009b1m\\u202e.v1" in out + err


def test_replay_has_the_effect_and_unparks(desk: Desk) -> None:
    one, other = desk.park('{"number": 1}'), desk.park('{"number": 2}')
    status, out, _ = desk("replay", str(one))
    assert (status, out) == (0, f"{one}  bank.paid.v1  handled\n")
    assert [row[0] for row in desk.ask("SELECT number FROM effects")] == [1]
    assert tiny_messages.subjects[-1] == "user-17"
    assert desk.left() == [other]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('{"number": 1, "then": "fail"}', "RuntimeError: the handler failed"),
        ('{"number": -1}', "greater than or equal to 0"),
    ],
)
def test_a_replay_that_fails_changes_nothing_and_says_why(desk: Desk, body: str, why: str) -> None:
    parked = desk.park(body)
    status, out, err = desk("replay", str(parked))
    assert (status, out) == (1, "")
    assert why in err
    assert desk.ask("SELECT number FROM effects") == []
    assert desk.left() == [parked]


def test_a_replay_of_a_message_that_nobody_takes_is_reported(desk: Desk) -> None:
    parked = desk.park(name="bank.refunded.v1")
    status, _, err = desk("replay", str(parked))
    assert status == 1
    assert "bank.refunded.v1 has no line in INCOMING of messaging/: add one" in err
    assert desk.left() == [parked]


def test_a_message_that_fails_does_not_keep_other_messages_from_being_replayed(desk: Desk) -> None:
    bad, good = desk.park('{"number": 1, "then": "fail"}'), desk.park('{"number": 2}')
    assert desk("replay", str(bad), str(good))[0] == 1
    assert [row[0] for row in desk.ask("SELECT number FROM effects")] == [2]
    assert desk.left() == [bad]


def test_all_messages_of_a_name_are_replayed_in_the_order_of_their_parking(desk: Desk) -> None:
    for number in range(1, 4):
        desk.park(f'{{"number": {number}}}')
    other = desk.park(name="bank.refunded.v1")
    status, out, _ = desk("replay", "--name", "bank.paid.v1")
    assert (status, out.count("handled\n")) == (0, 3)
    assert [row[0] for row in desk.ask("SELECT number FROM effects ORDER BY seq")] == [1, 2, 3]
    assert desk.left() == [other]


def test_a_replay_of_all_messages_of_a_name_goes_on_after_a_failure_and_reports_the_failure(desk: Desk) -> None:
    bad = desk.park('{"number": 1, "then": "fail"}')
    desk.park('{"number": 2}')
    status, out, err = desk("replay", "--name", "bank.paid.v1")
    assert (status, out.count("handled\n")) == (1, 1)
    assert err == f"{bad} stays parked: RuntimeError: the handler failed\n"
    assert desk.left() == [bad]


def test_all_messages_of_a_name_are_dropped(desk: Desk) -> None:
    desk.park()
    other = desk.park(name="bank.refunded.v1")
    status, out, _ = desk("drop", "--name", "bank.paid.v1")
    assert (status, json.loads(out)["name"]) == (0, "bank.paid.v1")
    assert desk.left() == [other]


def test_a_replay_of_a_name_that_no_parked_message_has_says_so(desk: Desk) -> None:
    desk.park()
    assert desk("replay", "--name", "bank.paid.v2") == (0, "", "No message is parked under the name bank.paid.v2.\n")


@pytest.mark.parametrize("arguments", [[], ["--name", "bank.paid.v1", str(uuid4())]])
def test_a_replay_needs_either_ids_or_a_name(desk: Desk, arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        desk("replay", *arguments)


def test_replaying_a_refused_message_sends_the_message_again_under_its_id(desk: Desk) -> None:
    parked = desk.park(name="tiny.thing-made.v1", direction="outgoing")
    (message_id,) = desk.ask("SELECT message_id FROM chassis.parked")[0]
    status, out, _ = desk("replay", str(parked))
    assert (status, out) == (0, f"{parked}  tiny.thing-made.v1  to be sent\n")
    ((row),) = desk.ask("SELECT * FROM chassis.outbox")
    assert (str(row["id"]), row["type"], row["aggregateid"]) == (message_id, "tiny.thing-made.v1", "a")
    assert (row["payload"], row["traceparent"], row["subject"]) == ('{"number": 1}', TRACE, "user-17")


def test_drop_prints_the_removed_messages(desk: Desk) -> None:
    parked = desk.park('{"number": 9}')
    status, out, _ = desk("drop", str(parked))
    assert (status, json.loads(out)["body"]) == (0, '{"number": 9}')
    assert desk.left() == []


@pytest.mark.parametrize("action", ["show", "replay", "drop"])
def test_an_unknown_id_is_refused(desk: Desk, action: str) -> None:
    nobody = str(uuid4())
    assert desk(action, nobody) == (1, "", f"no message is parked as {nobody}\n")


def test_something_that_is_no_id_is_refused(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        desk("show", "first")
    assert "invalid UUID value: 'first'" in capsys.readouterr().err


def test_a_job_that_may_take_longer_than_other_messages_is_replayed_within_its_own_timeout(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def on_count(job: tiny_messages.CountV1, uow: UnitOfWork) -> None:
        await uow.connection.execute("SELECT pg_sleep(0.5)")

    slow = OnJob(tiny_messages.CountV1, on_count, queue="reports", timeout=timedelta(minutes=10))
    desk.service = dataclasses.replace(desk.service, messages=Messages("tiny", incoming=(slow,)))
    desk.park(name="tiny--reports.count.v1")
    monkeypatch.setenv("MESSAGE_TIMEOUT_SECONDS", "0.2")
    assert desk("replay", "--name", "tiny--reports.count.v1")[0] == 0
    assert desk.left() == []
