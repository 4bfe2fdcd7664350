"""The ordering service on a real PostgreSQL, and a player of its sagas."""

import pytest
from chassis.database import Database
from chassis.messages import Messages
from chassis.messaging.outbox import Outbox
from chassis.sagas import Saga
from chassis.sagas.testing import SagaPlayer
from chassis.testing import Mailbox

from tests.chassis.sagas import ordering
from tests.chassis.sagas.ordering import place_order
from tests.chassis.sagas.players import Play, messages_of


@pytest.fixture
async def orders(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The database of the ordering service, whose units of work start and send."""
    ordering.faults.clear()
    await database.execute(ordering.EFFECTS)
    await database.execute("DELETE FROM done")
    monkeypatch.setattr(database, "_outbox", Outbox(messages_of(place_order)))
    return database


@pytest.fixture
def playing(orders: Database, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Return a function that makes a player for sagas, as a version of the service with only these sagas would run them."""

    def playing(*sagas: Saga) -> SagaPlayer:
        messages: Messages = messages_of(*sagas)
        monkeypatch.setattr(orders, "_outbox", Outbox(messages))
        return SagaPlayer(orders, messages, Mailbox(orders, messages))

    return playing


@pytest.fixture
def player(playing: Play) -> SagaPlayer:
    return playing(place_order)
