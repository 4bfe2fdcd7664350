"""The state that `inspect` reports is the state of the broker."""

from collections.abc import AsyncGenerator

import pytest
from chassis.brokers import BrokerUnavailable, Kind, Options, Topology
from chassis.brokers.inspection import StreamState, inspect
from pydantic import SecretStr

from tests.chassis.brokers.meeting import PATIENCE_SECONDS, Meeting, take
from tests.chassis.each_broker import Run, each_of
from tests.support import brokers

EVENTS = {"nats": "bank-{}-events", "kafka": "bank-{}.paid.v1", "rabbitmq": "shop-{}.events"}
JOBS = {"nats": "bank-{}-jobs", "kafka": "bank-{}.pay.v1", "rabbitmq": "bank-{}.jobs"}


@pytest.fixture(params=each_of("nats", "kafka", "rabbitmq"))
async def meeting(request: pytest.FixtureRequest, run: Run) -> AsyncGenerator[Meeting]:
    meeting = Meeting(run(request.param).url)
    yield meeting
    await meeting.end()


@pytest.mark.slow
async def test_a_service_sees_the_messages_that_wait_for_the_service_or_for_others(meeting: Meeting) -> None:
    broker = meeting.kind_of_broker.replace("amqp", "rabbitmq")
    names = {
        "awaited_events": frozenset({meeting.name("bank.paid.v1")}),
        "sent_jobs": frozenset({meeting.name("bank.pay.v1")}),
    }
    shop = Topology(f"shop-{meeting.suffix}", **names)
    options = Options(SecretStr(meeting.url), "shop-messages", publish_timeout_seconds=PATIENCE_SECONDS)
    events, jobs = EVENTS[broker].format(meeting.suffix), JOBS[broker].format(meeting.suffix)

    missing = await inspect(options, shop)
    assert {state.name: state.exists for state in missing} == {events: False, jobs: False}

    bank = await meeting.join("bank", publishes=["bank.paid.v1"], accepts=["bank.pay.v1"])
    listener = await meeting.join("shop", awaits=["bank.paid.v1"], sends=["bank.pay.v1"])
    subscription = await listener.subscribe(Kind.EVENT)
    for _ in range(3):
        await bank.publish(meeting.event())
    await listener.publish(meeting.job())

    def found(states: list[StreamState], name: str) -> tuple[int | None, int | None]:
        (state,) = [state for state in states if state.name == name]
        return state.messages, state.waiting

    taken = await take(subscription, 3)
    await subscription.acknowledge(taken)
    await meeting.leave(listener, subscription)
    await bank.publish(meeting.event())
    await bank.publish(meeting.event())
    states = await inspect(options, shop)
    assert found(states, events) == ((2 if broker == "rabbitmq" else 5), 2)
    assert found(states, jobs) == (1, None)


@pytest.mark.parametrize("scheme", ["nats", "kafka", "amqp"])
async def test_a_broker_that_does_not_answer_is_unavailable(scheme: str) -> None:
    url = SecretStr(f"{scheme}://127.0.0.1:{brokers.free_port()}")
    options = Options(url, "shop-messages", publish_timeout_seconds=0.5)
    topology = Topology("shop", awaited_events=frozenset({"bank.paid.v1"}))
    with pytest.raises(BrokerUnavailable):
        await inspect(options, topology)
