"""The programs that the tests need beyond Python packages, in one list.

    python -m tests.support.needs    installs them, as far as this machine allows, and lists the missing programs

`make test` runs this first. A test that runs alone installs its programs itself.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest

from docs import prose
from fleet.conventions.committed_secrets import NoSecrets
from tests.service.rolling import balancer
from tests.support import brokers, browser, compose, debian, engine, golang, npm, pgbouncer, pypi, temporal
from tests.support.oidc_provider import OIDC_PROVIDER
from tests.support.tools import KINGFISHER_RULES

ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.2"
OASDIFF = "github.com/oasdiff/oasdiff@v1.35.0"

ASYNCAPI_PARSER = "@asyncapi/parser@3.6.3"
BLOCKFROST_API = "@blockfrost/openapi@0.1.93"
GITHUB_API = "@octokit/openapi@23.0.2"
BACKSTAGE = "@backstage/catalog-model@1.10.1"
AXE = "axe-core@4.14.1"
MERMAID = "mermaid@12.3.0"
REDOCLY = "@redocly/cli@2.77.0"
RENOVATE = "renovate@44.121.2"
SWAGGER_UI = "swagger-ui-dist@5.35.0"  # the version of chassis/web/docs_page.py
SPECTRAL = "@stoplight/spectral-cli@6.16.3"

CHECKOV = "checkov==3.3.30"
KEDA_MODELS = "cloudcoil-models-keda==2.16.1.0"  # the newest for Python 3.11
PYPISERVER = "pypiserver[passlib]==2.4.2"

AT_ONCE = 4
ATTEMPTS = 3
PAUSE_SECONDS = 5
LIMIT_SECONDS = 540
"""The time after which no attempt starts. A single attempt has a time limit in its own function."""


@dataclass(frozen=True)
class Need:
    """A program, the tests that are skipped without it, and the function that installs or finds it."""

    name: str
    tests: str
    install: Callable[[], object]


def kingfisher_rules() -> None:
    os.environ["KF_RULE_CACHE_DIR"] = str(KINGFISHER_RULES)
    NoSecrets().prepare([])


# The programs are installed at the same time, so the slowest come first.
NEEDS = [
    Need("Docker Engine and the base image", "tests/delivery/image", engine.prepare),
    Need("RabbitMQ", "RabbitMQ's in tests/chassis and tests/service/test_two_services.py", brokers.rabbitmq_server),
    Need("Kafka", "Kafka's in tests/chassis and tests/service/test_two_services.py", brokers.kafka_files),
    Need(
        "Chromium",
        "tests/fleet/page, tests/fleet/map/test_map_drawing.py, tests/repository/test_site.py, "
        "tests/service/test_first_run.py",
        browser.chromium,
    ),
    Need(
        "kustomize",
        "tests/delivery/test_kubernetes.py, test_delivery.py",
        partial(golang.built, "kustomize", KUSTOMIZE),
    ),
    Need("Vale", "tests/repository/test_prose.py", partial(golang.built, "vale", prose.MODULE)),
    Need("checkov", "tests/delivery/test_kubernetes.py", partial(pypi.programs, CHECKOV)),
    Need("Renovate", "tests/fleet/update/test_renovate.py", partial(npm.with_node_24, RENOVATE)),
    Need(
        "oasdiff",
        "tests/fleet/judges/test_openapi_diff.py, tests/fleet/map/test_map_uses.py",
        partial(golang.built, "oasdiff", OASDIFF),
    ),
    Need("actionlint", "tests/delivery/test_delivery.py", partial(golang.built, "actionlint", ACTIONLINT)),
    Need("Spectral", "tests/service/test_spec_linters.py", partial(npm.installed, SPECTRAL)),
    Need("Redocly", "tests/service/test_spec_linters.py", partial(npm.installed, REDOCLY)),
    Need("Backstage's model", "tests/delivery/test_delivery.py", partial(npm.installed, BACKSTAGE)),
    Need("oidc-provider", "tests/chassis/identity/test_provider.py", partial(npm.installed, OIDC_PROVIDER)),
    Need("AsyncAPI's parser", "tests/chassis/messaging/test_asyncapi.py", partial(npm.installed, ASYNCAPI_PARSER)),
    Need(
        "the API of GitHub",
        "tests/fleet/client/test_public_documents.py",
        partial(npm.packed, GITHUB_API, "generated/api.github.com.json"),
    ),
    Need(
        "the API of Blockfrost",
        "tests/fleet/client/test_public_documents.py",
        partial(npm.packed, BLOCKFROST_API, "openapi.yaml"),
    ),
    Need("axe", "tests/fleet/page/test_map_page.py", partial(npm.packed, AXE, "axe.min.js")),
    Need("Mermaid", "tests/fleet/map/test_map_drawing.py", partial(npm.packed, MERMAID, "dist/mermaid.min.js")),
    Need("Swagger UI", "tests/service/test_first_run.py", partial(npm.packed, SWAGGER_UI, "swagger-ui-bundle.js")),
    Need("KEDA's models", "tests/delivery/test_kubernetes.py", partial(pypi.programs, KEDA_MODELS)),
    Need("pypiserver", "tests/delivery/test_published_chassis.py", partial(pypi.programs, PYPISERVER)),
    Need("Kingfisher's rules", "nothing: the first test that scans compiles them", kingfisher_rules),
    Need("HAProxy", "tests/service/test_rolling.py", balancer.haproxy),
    Need("PgBouncer", "tests/chassis/database/test_pooler.py", pgbouncer.installed),
    Need("promtool", "tests/service/test_observability.py", partial(debian.program, "promtool", "prometheus")),
    Need("Docker Compose", "tests/delivery/image/test_compose.py", compose.command),
    Need("a newer make", "tests/template/test_hostile_names.py", partial(debian.unpacked, "make", "trixie")),
    Need("libfaketime", "tests/service/test_two_services.py", partial(debian.unpacked, "libfaketime")),
    Need("Temporal's development server", "tests/service/test_temporal.py", temporal.program),
    Need("a certificate", "those with TLS", brokers.self_signed),
]


def install(need: Need) -> str | None:
    """Install the program, with a second attempt after a failure. Returns the reason why it is missing."""
    deadline = time.monotonic() + LIMIT_SECONDS
    for attempt in range(ATTEMPTS):
        try:
            need.install()
            return None
        except (pytest.skip.Exception, brokers.Missing) as missing:
            return str(missing)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            reason = str(error)
            if isinstance(error, subprocess.CalledProcessError) and error.stderr:
                reason += f"\n{error.stderr}"
            if attempt == ATTEMPTS - 1 or time.monotonic() > deadline:
                return reason
            time.sleep(PAUSE_SECONDS)
    raise AssertionError("unreachable")


def main(needs: list[Need] = NEEDS) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for need, reason in zip(needs, pool.map(install, needs), strict=True):
            if reason is not None:
                print(f"missing: {need.name}. Skipped without it: {need.tests}. {reason}", file=sys.stderr)  # noqa: T201
    if (took := time.monotonic() - began) > PAUSE_SECONDS:
        print(f"installed what the tests need, in {took:.0f} s", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
