"""A broker's client that is replaced after it is lost."""

import asyncio

import pytest
from chassis.brokers import supervised_client
from chassis.brokers.supervised_client import SupervisedClient


async def test_closing_ends_also_where_the_client_library_swallows_a_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervised_client, "LOOK_SECONDS", 0)
    monkeypatch.setattr(supervised_client, "CANCEL_SECONDS", 0.01)
    looking = asyncio.Event()

    async def make() -> str:
        return "client"

    async def holds(_: str) -> bool:
        looking.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            monkeypatch.setattr(supervised_client, "LOOK_SECONDS", 60)
        return True

    async def leave(_: str) -> None:
        """Do nothing: this client has nothing to close."""

    connection = SupervisedClient("test", make=make, holds=holds, leave=leave)
    async with asyncio.timeout(30):
        await connection.open()
        await looking.wait()
        await connection.close()
