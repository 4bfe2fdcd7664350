from collections.abc import AsyncGenerator

import pytest
from chassis.neighbours.testing import neighbour
from fastapi import FastAPI


@pytest.fixture(scope="session")
async def app(app: FastAPI) -> AsyncGenerator[FastAPI]:
    """With a payments service that charges every card."""
    async with app.state.settings.client_for("payments", transport=neighbour("payments")) as payments:
        app.state.payments = payments
        yield app
