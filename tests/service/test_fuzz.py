"""The API document is true: Schemathesis, with every check, finds nothing in a real service.

To run for two minutes, or with another seed: FUZZ_SECONDS=120 FUZZ_SEED=7 make test ARGS="-k fuzz".
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from tests.support.answers import VARIANTS
from tests.support.commands import git
from tests.support.running import running
from tests.support.services import Birth
from tests.support.tokens import Trusted, trusted_issuer

# Limit the number of examples and not the time: with a time limit, Schemathesis silently tests less of each operation.
LIMIT = ["--max-time", os.environ["FUZZ_SECONDS"]] if "FUZZ_SECONDS" in os.environ else ["--max-examples", "25"]
# The seed is fixed, so that a mistake shows in the run of its own change, and not in a later run.
SEED = os.environ.get("FUZZ_SEED", "2027")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("fuzz")]


@dataclass(frozen=True)
class Outcome:
    """The result of a run of Schemathesis: its exit status, its report, and its output."""

    status: int
    report: dict[str, Any]
    output: str


@dataclass(frozen=True)
class Fuzzed:
    """A service that runs with requests in its log, for Schemathesis. `folder` has the log and the reports."""

    service: Path
    folder: Path
    base: str
    trusted: Trusted

    def log(self) -> str:
        return (self.folder / "service.log").read_text()

    def run(self, *options: str, token: bool = True) -> Outcome:
        report = self.folder / "report.json"
        command = [str(Path(sys.executable).with_name("schemathesis"))]
        command += ["--config-file", str(self.service / "schemathesis.toml"), "run", f"{self.base}/openapi.json"]
        command += ["--checks", "all", "--continue-on-failure", "--seed", SEED, "--no-color", *options]
        command += ["--report", "json", "--report-json-path", str(report)]
        nouns = {
            scope.partition(":")[0]
            for *_, each in operations_of(document_of(self.service))
            for scope in scopes_of(each)
        }
        for name, value in self.trusted.headers(*nouns).items() if token else ():
            command += ["--header", f"{name}: {value}"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        # The seed is in the output, which pytest shows after a failure.
        return Outcome(done.returncode, json.loads(report.read_text()), done.stdout + done.stderr)


@contextmanager
def fuzzed(service: Path, folder: Path) -> Generator[Fuzzed]:
    if (hooks := service / "schemathesis_hooks.py").exists():
        (folder / hooks.name).symlink_to(hooks)
    with (
        trusted_issuer(document_of(service)["info"]["title"]) as trusted,
        running(service, folder, LOG_REQUESTS="true", **trusted.settings) as base,
    ):
        yield Fuzzed(service, folder, base, trusted)


@pytest.fixture(scope="module")
def every_type(birth: Birth, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with fuzzed(birth(**VARIANTS["every-type"]), tmp_path_factory.mktemp("fuzzed")) as running:
        yield running


def test_a_service_with_every_field_type_behaves_as_its_document_describes(every_type: Fuzzed) -> None:
    found = every_type.run(*LIMIT)
    assert (found.status, found.report["failures"], found.report["errors"]) == (0, [], []), found.output
    assert {name: phase["status"] for name, phase in found.report["phases"].items()} == dict.fromkeys(
        ("examples", "coverage", "fuzzing", "stateful"), "success"
    )
    # Each operation also had an answer 2xx, so not all of its examples were refused.
    operations = {f"{method.upper()} {path}" for path, method, _ in operations_of(document_of(every_type.service))}
    accepted = {
        operation: sum(phase["accepted"] for phase in phases.values())
        for operation, phases in found.report["valid_rates"].items()
    }
    assert operations == set(accepted)
    assert min(accepted.values()) > 0, accepted
    assert "request_failed" not in every_type.log()


def test_every_operation_refuses_every_request_without_token(every_type: Fuzzed) -> None:
    logged = len(every_type.log())
    # Most checks of Schemathesis need an answer 2xx, which no request without a token gets. The service reads the token
    # first, so few examples are enough.
    every_type.run("--phases", "fuzzing", "--max-examples", "5", "--checks", "not_a_server_error", token=False)
    answered: dict[tuple[str, str], set[int]] = {}
    for line in every_type.log()[logged:].splitlines():
        if (event := json.loads(line))["event"] == "request_finished":
            answered.setdefault((event["method"], event["route"]), set()).add(event["status"])
    documented = operations_of(document_of(every_type.service))
    operations = {(method.upper(), path) for path, method, each in documented if "x-public" not in each}
    assert {operation: answered.get(operation) for operation in operations} == {each: {401} for each in operations}


# Maps an operation to its breakage. Each breakage has an operation of its own, so that none hides another.
BREAKAGES = {
    "POST /v1/invoices/{invoice_id}/issue": (  # a status that is not documented
        "    command = usecases.IssueInvoice(",
        "    from fastapi import Response\n\n    return Response(status_code=202)\n    command = usecases.IssueInvoice(",
        "UndefinedStatusCode",
    ),
    "GET /v1/invoices": ("limit=cursor.limit + 1", "limit=cursor.limit - 50", "ServerError"),
    "GET /v1/invoices/{invoice_id}": (  # a documented header that is not sent
        "    return await invoice_queries.find_invoice(reader(), invoice_id)\n",
        "    from fastapi.responses import JSONResponse\n\n"
        "    found = await invoice_queries.find_invoice(reader(), invoice_id)\n"
        '    return JSONResponse(InvoiceDetails.model_validate(found).model_dump(mode="json"))\n',
        "MissingHeaders",
    ),
    "POST /v1/invoices": (  # a field that the document refuses
        "class NewInvoice(fields.RequestModel):\n",
        "class NewInvoice(fields.RequestModel):\n"
        '    model_config = {"extra": "ignore", "json_schema_extra": {"additionalProperties": False}}\n',
        "AcceptedNegativeData",
    ),
}


def test_each_operation_that_does_otherwise_is_found_out(birth: Birth, tmp_path: Path) -> None:
    service = birth(**VARIANTS["default"])
    route = service / "src/billing/api/invoices.py"
    text = route.read_text()
    for old, new, _ in BREAKAGES.values():
        assert old in text, f"{route.name} no longer holds {old!r}: mend this breakage"
        text = text.replace(old, new)
    try:
        route.write_text(text)
        with fuzzed(service, tmp_path) as running:
            found = running.run("--phases", "coverage,stateful", "--max-examples", "10")
    finally:
        git(service, "checkout", "--quiet", ".")
    assert found.status == 1, found.output
    failures = {(operation, each["type"]) for each in found.report["failures"] for operation in each["operations"]}
    assert {(operation, failure) for operation, (*_, failure) in BREAKAGES.items()} <= failures, found.output


def document_of(service: Path) -> dict[str, Any]:
    return json.loads((service / "specs/openapi.json").read_text())


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def scopes_of(operation: dict[str, Any]) -> Iterator[str]:
    for requirement in operation.get("security", ()):
        yield from (scope for scopes in requirement.values() for scope in scopes)


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        yield from nodes(child)


@pytest.fixture
def document(birth: Birth) -> dict[str, Any]:
    return document_of(birth(**VARIANTS["every-type"]))


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations_of(document)]
    assert sorted(set(ids)) == sorted(ids)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)+", each) for each in ids), ids
    tags = {tag["name"] for tag in document["tags"]}
    for path, method, operation in operations_of(document):
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        assert len(tags.intersection(operation["tags"])) == 1, (method, path)
        assert all(parameter["description"] for parameter in operation.get("parameters", [])), (method, path)


def test_every_failure_is_a_problem_document(document: dict[str, Any]) -> None:
    shared = {f"#/components/responses/{name}": each for name, each in document["components"]["responses"].items()}
    failures = {"413", "422", "503"}
    for path, method, operation in operations_of(document):
        responses = {status: shared.get(each.get("$ref"), each) for status, each in operation["responses"].items()}
        assert responses.keys() >= failures, (method, path)
        for status, response in responses.items():
            if status >= "400":
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)
        assert "Retry-After" in responses["503"]["headers"]
        if any(parameter["name"] == "If-Match" for parameter in operation.get("parameters", [])):
            assert responses.keys() >= {"404", "412", "428"}, (method, path)
        elif method != "delete" and path.endswith("}"):
            assert "ETag" in responses["200"]["headers"], (method, path)
    created = next(each["responses"]["201"] for _, _, each in operations_of(document) if "201" in each["responses"])
    assert {"ETag", "Location"} <= created["headers"].keys()


def test_schema_names_equal_the_names_in_the_code(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert {"Money", "NewEverything", "EverythingPatch", "EverythingDetails", "Problem"} <= schemas.keys()
    assert [name for name in schemas if not re.fullmatch("[A-Z][A-Za-z0-9]*", name)] == []
    assert "ValidationError" not in json.dumps(schemas)


def test_every_example_is_valid(document: dict[str, Any]) -> None:
    checked = 0
    for node in nodes(document):
        if "type" not in node and "$ref" not in node:
            continue
        validator = OAS31Validator(
            {**node, "components": document["components"]}, format_checker=OAS31Validator.FORMAT_CHECKER
        )
        for example in node.get("examples", []):
            validator.validate(example)
            checked += 1
    assert checked > 50


def test_every_string_and_number_that_a_client_sends_is_bounded(document: dict[str, Any]) -> None:
    """Each value has a fixed form, or a limited length or size, so the API refuses values that the database cannot store."""
    for node in nodes(document["components"]["schemas"]["NewEverything"]):
        match node.get("type"):
            case "string":
                assert {"maxLength", "pattern", "format", "enum"} & node.keys(), node
            case "integer":
                assert {"minimum", "maximum"} <= node.keys(), node
