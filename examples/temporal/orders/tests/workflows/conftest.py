"""The development server of Temporal, and the worker of this service."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from chassis.database import Database
from chassis.sagas.testing import sagas
from temporalio.testing import WorkflowEnvironment

from orders.workflows.client import temporal
from orders.workflows.worker import worker

__all__ = ["sagas"]


@pytest.fixture(scope="session")
async def temporal_server() -> AsyncGenerator[None]:
    program = str(Path(sys.executable).with_name("temporal"))
    with pytest.MonkeyPatch.context() as patch:
        async with await WorkflowEnvironment.start_local(dev_server_existing_path=program) as server:
            patch.setenv("TEMPORAL_ADDRESS", server.client.service_client.config.target_host)
            yield


@pytest.fixture
async def workflows(temporal_server: None, database: Database) -> AsyncGenerator[None]:
    """Run the worker of Temporal on the database of the test."""
    async with worker(await temporal(), database):
        yield
