"""The client of Temporal, for the handlers and the worker."""

from temporalio.client import Client
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig

_client: Client | None = None


async def temporal() -> Client:
    """Connect once in a process, by TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and the other variables of Temporal's command line."""
    global _client
    if _client is None:
        settings = ClientConfig.load_client_connect_config()
        settings.setdefault("target_host", "localhost:7233")
        tracing = [TracingInterceptor()]
        _client = await Client.connect(**settings, data_converter=pydantic_data_converter, interceptors=tracing)
    return _client
