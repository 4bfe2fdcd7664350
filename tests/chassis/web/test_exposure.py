"""A service shows its API to every client that reaches it, and nothing about itself unless a setting allows that."""

import re
from collections.abc import Callable

import httpx2
import pytest
from chassis.application import application, worker
from chassis.service import Service
from fastapi import FastAPI

from tests.chassis.sockets import listening
from tests.support.link import Link


@pytest.fixture
def unconfigured(service: Service, link: Link) -> FastAPI:
    """The application with only the required settings."""
    return application(service, service.settings.model_validate({"database_url": link.url, "service_version": "v7"}))


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/redoc", "/docs/oauth2-redirect"])
async def test_the_document_of_the_api_is_not_served_unless_a_setting_says_so(
    unconfigured: FastAPI, make_app: Callable[..., FastAPI], path: str
) -> None:
    async with listening(unconfigured) as client:
        assert (await client.get(path)).status_code == 404
    async with listening(make_app(serve_docs=True)) as client:
        assert (await client.get(path)).status_code == (200 if path in ("/docs", "/openapi.json") else 404)


async def test_a_probe_says_no_more_than_ready_or_not_unless_a_setting_says_so(
    unconfigured: FastAPI, link: Link
) -> None:
    async with listening(unconfigured) as client:
        for path in ("/livez", "/readyz", "/startupz"):
            assert (await client.get(path)).json() == {"status": "ok"}
        link.cut()
        unready = await client.get("/readyz")

    assert (unready.status_code, unready.json()) == (503, {"status": "unavailable"})


async def test_a_worker_says_no_more_than_ready_or_not_either(service: Service, link: Link) -> None:
    async with listening(worker(service, service.settings.model_validate({"database_url": link.url}))) as client:
        assert (await client.get("/readyz")).json() == {"status": "ok"}


async def test_a_caller_that_knows_the_version_can_ask_whether_that_version_is_ready(unconfigured: FastAPI) -> None:
    async with listening(unconfigured) as client:
        same = await client.get("/readyz", params={"version": "v7"})
        other = await client.get("/readyz", params={"version": "v8"})

    assert (same.status_code, same.json()) == (200, {"status": "ok"})
    assert (other.status_code, other.json()) == (503, {"status": "unavailable"})


async def test_the_page_of_the_api_runs_only_scripts_whose_content_is_known(make_app: Callable[..., FastAPI]) -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(make_app()), base_url="http://tiny") as client:
        answer = await client.get("/docs")
        page = answer.text

    assert "<title>tiny</title>" in page
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
    foreign = re.findall(r"<(?:script|link)[^>]*https://[^>]*>", page)
    assert len(foreign) == page.count("https://") == 2
    for tag in foreign:
        assert re.search(r'@\d+\.\d+\.\d+/\S+" integrity="sha384-[A-Za-z0-9+/]{64}" crossorigin="anonymous"', tag)
