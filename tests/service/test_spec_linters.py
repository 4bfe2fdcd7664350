"""Common linters of API documents, run on the documents of several variants of a service."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import npm
from tests.support.answers import VARIANTS
from tests.support.needs import REDOCLY, SPECTRAL
from tests.support.services import Render

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spec-linters")]

# Services without a broker, and on NATS, Kafka and RabbitMQ.
SERVICES = ("every-type", "short", "approved", "both-rabbitmq")

# The allowed findings with their reasons: (the rule, the document).
EXCEPTED = {
    # Two services have `auth: none`. The broker, and not the service, knows who sends a message.
    ("security-defined", "openapi"),
    ("security-defined", "asyncapi"),
    # OpenAPI 3.1 allows names of roles for every scheme; the rule knows version 3.0, which allows them for OAuth2 alone.
    ("oas3-operation-security-defined", "openapi"),
    # The rule also wants a page and an e-mail address, but the answers only have the name of the owner.
    ("asyncapi-info-contact-properties", "asyncapi"),
    # AsyncAPI names a licence by a page, and a proprietary licence has none. In OpenAPI it has an SPDX identifier.
    ("info-license-strict", "asyncapi"),
}


@pytest.fixture(scope="module")
def specs(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the documents of each service: short.openapi.json, …"""
    folder = tmp_path_factory.mktemp("specs")
    for variant in SERVICES:
        answers = VARIANTS[variant]
        service = Path(shutil.copytree(render(**answers), folder / variant))
        package = answers["service_name"].replace("-", "_")
        command = [sys.executable, "-m", package, "specs"]
        subprocess.run(command, cwd=service, env={**os.environ, "PYTHONPATH": "src"}, check=True, timeout=60)
        for document in service.glob("specs/*api.json"):
            shutil.copy(document, folder / f"{variant}.{document.name}")
        shutil.rmtree(service)
    return folder


def spectral(folder: Path) -> list[tuple[str, Path, str]]:
    program = npm.installed(SPECTRAL) / "node_modules/.bin/spectral"
    rules = folder / "spectral.yaml"
    rules.write_text(
        'extends: ["spectral:oas", "spectral:asyncapi"]\n'
    )  # Spectral applies each to documents of its kind
    documents = sorted(map(str, folder.glob("*api.json")))
    command = [str(program), "lint", "--quiet", "--format", "json", "--fail-severity", "hint", "-r", str(rules)]
    done = subprocess.run([*command, *documents], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    return [(one["code"], Path(one["source"]), one["message"]) for one in json.JSONDecoder().raw_decode(done.stdout)[0]]


def redocly(specs: Path) -> list[tuple[str, Path, str]]:
    program = npm.installed(REDOCLY) / "node_modules/.bin/redocly"
    (specs / "redocly.yaml").write_text("extends: [recommended]\n")
    documents = sorted(document.name for document in specs.glob("*api.json"))
    command = [str(program), "lint", "--config", "redocly.yaml", "--format", "json", *documents]
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    environment = {**os.environ, **quiet}
    done = subprocess.run(command, cwd=specs, env=environment, capture_output=True, text=True, timeout=300)
    text, found = done.stdout.strip(), []
    while text.startswith("{"):  # one JSON text for each document
        report, end = json.JSONDecoder().raw_decode(text)
        found += [
            (one["ruleId"], Path(one["location"][0]["source"]["ref"]), one["message"]) for one in report["problems"]
        ]
        text = text[end:].strip()
    assert found, done.stderr  # there are at least the findings that EXCEPTED allows
    return found


def by_document(found: list[tuple[str, Path, str]]) -> set[tuple[str, str]]:
    return {(rule, path.name.split(".")[1]) for rule, path, _ in found}


def test_the_linters_find_nothing_but_the_exceptions_in_the_documents_of_any_variant(specs: Path) -> None:
    found = [*spectral(specs), *redocly(specs)]
    assert by_document(found) == EXCEPTED, found
    open_to_all = {path.name for rule, path, _ in found if rule == "security-defined" and "openapi" in path.name}
    assert open_to_all == {"short.openapi.json", "approved.openapi.json"}


def test_a_document_without_server_and_contact_is_reported(specs: Path, tmp_path: Path) -> None:
    document = json.loads((specs / "short.openapi.json").read_text())
    del document["servers"], document["info"]["contact"]
    (tmp_path / "bare.openapi.json").write_text(json.dumps(document))
    assert {rule for rule, *_ in spectral(tmp_path)} == {"oas3-api-servers", "info-contact"}
