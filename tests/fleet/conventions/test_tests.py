"""Each convention about a service's tests, broken in one way; and the calls that count as a test of a route."""

import ast

import pytest

from fleet.conventions.tests import Texts, fits
from fleet.service.openapi import Document
from fleet.service.source import Module
from tests.fleet.conventions.mutations import Mutations, each_alone, edit, everywhere, remove

API = "tests/api/test_invoices.py"

MUTATIONS: Mutations = {
    "a route that no test calls": (
        "tests-routes",
        remove(API),
        "no test calls POST /v1/invoices/{invoice_id}/issue",
    ),
    "a method that no test calls": (
        "tests-routes",
        everywhere(API, "client.delete(", "client.get("),
        "no test calls DELETE /v1/invoices/{invoice_id}",
    ),
    "a message that no test receives": (
        "tests-subscriptions",
        edit(
            "tests/messaging/test_invoice_reminders.py",
            'REMINDER = "billing.remind-of-invoice.v1"',
            'REMINDER = "billing.x.v1"',
        ),
        "no test receives billing.remind-of-invoice.v1",
    ),
    "a contract without an agreed body": (
        "tests-contracts",
        remove("tests/messaging/golden/invoice_issued_v1.json"),
        "there is no tests/messaging/golden/invoice_issued_v1.json",
    ),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


# --- calls that count as a test ---------------------------------------------------------------------------------------

ROUTES = {
    "/v1/invoices": ["get", "post"],
    "/v1/invoices/{invoice_id}": ["get"],
    "/v1/invoices/{invoice_id}/issue": ["post"],
    "/v1/invoices/summary": ["get"],
}

CALLS: dict[str, list[str]] = {
    'client.get("/v1/invoices")': ["GET /v1/invoices"],
    'client.get("http://service/v1/invoices?limit=2")': ["GET /v1/invoices"],
    'client.get(url="/v1/invoices", params={})': ["GET /v1/invoices"],
    'client.request("POST", "/v1/invoices")': ["POST /v1/invoices"],
    'client.get(f"/v1/invoices/{new().id}")': ["GET /v1/invoices/{invoice_id}"],
    'client.get("/v1/invoices/" + str(id))': ["GET /v1/invoices/{invoice_id}"],
    'client.get("/v1/invoices/summary")': ["GET /v1/invoices/{invoice_id}", "GET /v1/invoices/summary"],
    'URL = "/v1/invoices"\nclient.post(URL)': ["POST /v1/invoices"],
    'URL = "/v1/invoices"\nclient.post(f"{URL}/{made()[\'id\']}/issue")': ["POST /v1/invoices/{invoice_id}/issue"],
    'def go(n):\n    url = f"/v1/invoices/{n}"\n    client.post(f"{url}/issue")': [
        "POST /v1/invoices/{invoice_id}/issue"
    ],
    'client.post(f"{url_of(invoice)}/issue")': ["POST /v1/invoices/{invoice_id}/issue"],
    'for verb in ["issue"]:\n    client.post(f"/v1/invoices/{id}/{verb}")': ["POST /v1/invoices/{invoice_id}/issue"],
    'CASES = ["/v1/invoices"]\ndef test(path): client.get(path)': ["GET /v1/invoices"],
    "from builders.urls import URL\nclient.get(URL)": ["GET /v1/invoices"],
    'client.get(response.headers["Location"])': [],
    'client.put("/v1/invoices")': [],
    'client.get("/v2/invoices")': [],
    'client.get("/v1/invoices/")': [],
    '# client.get("/v1/invoices")': [],
    'url = url + "/x"\nclient.get(url)': [],
}


@pytest.mark.parametrize(("text", "reached"), CALLS.items())
def test_a_call_counts_for_each_operation_that_matches_its_path(text: str, reached: list[str]) -> None:
    paths = {path: {method: {"responses": {}} for method in methods} for path, methods in ROUTES.items()}
    elsewhere = Module("tests/builders/urls.py", ast.parse('URL = "/v1/invoices"'))
    called = Texts([Module("tests/api/test_it.py", ast.parse(text)), elsewhere]).requests()
    found = Document({"openapi": "3.1.0", "paths": paths}).operations
    assert [str(one) for one in found if any(fits(url, one) for url in called.get(one.method, ()))] == reached
