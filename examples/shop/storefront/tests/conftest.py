from collections.abc import AsyncGenerator

import pytest
from chassis.neighbours.testing import neighbour
from fastapi import FastAPI


@pytest.fixture(scope="session")
async def app(app: FastAPI) -> AsyncGenerator[FastAPI]:
    """Start the application with an orders service that accepts every purchase."""
    async with app.state.settings.client_for("orders", transport=neighbour("orders")) as orders:
        app.state.orders = orders
        yield app
