"""`make push`, `make deploy` and `make smoke`: the order of their steps, and their refusals."""

import json
import re
import shlex
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest

from tests.support import stand_ins
from tests.support.answers import VARIANTS
from tests.support.services import Render
from tests.support.stand_ins import DIGEST, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return stand_ins.machine(tmp_path)


@pytest.fixture
def copy(render: Render, tmp_path: Path) -> Path:
    """The files of a service, which are enough for these commands."""
    return Path(shutil.copytree(render(**VARIANTS["default"]), tmp_path / "billing"))


# --- pushing ----------------------------------------------------------------------------------------------------------

PUSH = "make push REPOSITORY=ghcr.io/Acme/Billing VERSION=v1 OUTPUT=told"


def test_a_push_says_the_digest_that_the_registry_gave(copy: Path, machine: Machine) -> None:
    pushed = machine.run(PUSH, copy)
    assert pushed.returncode == 0, pushed.stderr
    assert (copy / "told").read_text() == f"DIGEST={DIGEST}\n"
    build, push, _ = machine.calls()
    assert shlex.join(build) == (
        "docker build --platform linux/amd64"
        " --cache-to=type=registry,ref=ghcr.io/acme/billing:layers,mode=max"
        " --tag ghcr.io/acme/billing:v1"
        " --cache-from=type=registry,ref=ghcr.io/acme/billing:layers --build-arg VERSION=v1 ."
    )
    assert push == ["docker", "push", "--quiet", "ghcr.io/acme/billing:v1"]


def test_a_push_completes_the_list_of_packages_before_anybody_can_pull_the_image(copy: Path, machine: Machine) -> None:
    (copy / "build").mkdir()
    (copy / "build/sbom.json").write_text("{}")
    assert machine.run(PUSH, copy).returncode == 0
    assert json.loads((copy / "build/sbom.json").read_text())["components"] == ["all"]
    assert [call[1] for call in machine.calls()] == ["build", "run", "push", "inspect"]
    run = machine.calls()[1]
    assert run[-3:] == ["ghcr.io/acme/billing:v1", "-c", (copy / "deploy/sbom.py").read_text().rstrip("\n")]


def test_an_image_whose_contents_cannot_be_listed_is_not_pushed(copy: Path, machine: Machine) -> None:
    (copy / "build").mkdir()
    (copy / "build/sbom.json").write_text("{}")
    machine.answers = {"docker run": (1, "")}
    assert machine.run(PUSH, copy).returncode != 0
    assert [call[1] for call in machine.calls()] == ["build", "run"]


def test_a_signature_covers_the_image_its_contents_and_its_origin(copy: Path, machine: Machine) -> None:
    (copy / "build").mkdir()
    (copy / "artifacts-metadata.json").write_text('{"subject": [], "predicate": {"runDetails": {"builder": {}}}}')
    signed = machine.run(f"make sign IMAGE=ghcr.io/acme/billing@{DIGEST}", copy)
    assert signed.returncode == 0, signed.stderr
    calls = machine.calls()
    assert [call[1] for call in calls] == ["sign", "attest", "attest"]
    assert {call[-1] for call in calls} == {f"ghcr.io/acme/billing@{DIGEST}"}
    files = {call[call.index("--type") + 1]: call[call.index("--predicate") + 1] for call in calls[1:]}
    assert files == {"cyclonedx": "build/sbom.json", "slsaprovenance1": "build/provenance.json"}
    assert json.loads((copy / "build/provenance.json").read_text()) == {"runDetails": {"builder": {}}}


def test_a_push_builds_for_the_nodes_of_production_that_local_mk_names(copy: Path, machine: Machine) -> None:
    (copy / "local.mk").write_text("PLATFORM = linux/arm64\n")
    assert machine.run(PUSH, copy).returncode == 0
    build = machine.calls()[0]
    assert build[build.index("--platform") + 1] == "linux/arm64"


# Git tags that a registry does not accept, each with the tag of its image.
TAGS = {
    "release/1.0": "release_1.0",
    "v1.0.0+build.5": "v1.0.0_build.5",
    "v1.0.0-rc.1": "v1.0.0-rc.1",
    "-v1": "_v1",
    "größe": "gr__" + "__e",
    "v" * 200: "v" * 128,
}


@pytest.mark.parametrize("version", TAGS)
def test_every_tag_of_git_becomes_a_tag_that_a_registry_takes(copy: Path, machine: Machine, version: str) -> None:
    assert machine.run(f"{PUSH} VERSION={version}", copy).returncode == 0
    build, push, _ = machine.calls()
    assert push[-1] == f"ghcr.io/acme/billing:{TAGS[version]}"
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", push[-1].partition(":")[2])
    # Only the tag differs: the image is built with the version as Git has it.
    assert f"VERSION={version}" in build


def test_a_repository_that_no_registry_takes_is_refused(copy: Path, machine: Machine) -> None:
    pushed = machine.run("make push REPOSITORY='--output=x'", copy)
    assert pushed.returncode != 0
    assert "REPOSITORY is '--output=x', which is not the name of a repository" in pushed.stderr
    assert machine.calls() == []


@pytest.mark.parametrize("failing", ["docker build", "docker push", "docker inspect"])
def test_a_push_that_fails_anywhere_says_no_digest(copy: Path, machine: Machine, failing: str) -> None:
    machine.answers[failing] = (1, "")
    pushed = machine.run(PUSH, copy)
    assert pushed.returncode != 0
    assert not (copy / "told").exists()
    assert " ".join(machine.calls()[-1][:2]) == failing, "nothing follows"


def test_a_push_needs_to_know_where_to(copy: Path, machine: Machine) -> None:
    pushed = machine.run("make push", copy)
    assert pushed.returncode != 0
    assert "make push REPOSITORY=" in pushed.stderr
    assert machine.calls() == []


def test_a_laptop_s_image_has_the_service_s_name_and_takes_layers_from_nowhere(copy: Path, machine: Machine) -> None:
    assert machine.run("make image VERSION=v1", copy).returncode == 0
    assert machine.calls() == [["docker", "build", "--tag", "billing", "--build-arg", "VERSION=v1", "."]]


# --- deploying --------------------------------------------------------------------------------------------------------

DEPLOY = f"make deploy OVERLAY=staging IMAGE=registry.example.com/team/billing@{DIGEST}"


def steps(machine: Machine) -> list[str]:
    """Return the requests to the cluster, without its address."""
    calls = [call for call in machine.calls() if call[0] == "kubectl"]
    assert all(call[1:3] == ["--namespace", "billing-staging"] for call in calls)
    return [" ".join(word for word in call[3:] if not word.startswith("/")) for call in calls]


@pytest.mark.slow
def test_a_deployment_migrates_then_replaces_the_pods_and_waits_for_both(copy: Path, machine: Machine) -> None:
    before = {path: path.read_bytes() for path in (copy / "deploy").rglob("*") if path.is_file()}
    deployed = machine.run(DEPLOY, copy)
    assert deployed.returncode == 0, deployed.stderr
    assert steps(machine) == [
        "delete job/billing-migrate --ignore-not-found",
        "apply --filename --selector app.kubernetes.io/component=migrate",
        "wait job/billing-migrate --for=jsonpath={.status.conditions} --timeout=15m",
        "logs job/billing-migrate --tail=-1",
        "get job/billing-migrate --output jsonpath={.status.conditions[*].type}",
        "apply --filename",
        "rollout status deployment --selector app.kubernetes.io/name=billing --timeout=15m",
    ]
    for manifest in machine.applied():
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
        assert manifest["metadata"]["namespace"] == "billing-staging"
    assert machine.images() == [f"registry.example.com/team/billing@{DIGEST}"] * 2
    assert {path: path.read_bytes() for path in before} == before, "the checkout stays as it is"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overlay", "namespace", "job"),
    [
        ("resources: [../production]\n", "billing-production", "billing-migrate"),
        ("resources: [../production]\nnameSuffix: -eu\n", "billing-production", "billing-migrate-eu"),
        ('resources: [../production]\nnamespace: "billing-eu" # ours\n', "billing-eu", "billing-migrate"),
    ],
    ids=["the base's namespace", "a suffix to every name", "a namespace in quotes"],
)
def test_the_release_uses_the_namespace_of_the_manifests(
    copy: Path, machine: Machine, overlay: str, namespace: str, job: str
) -> None:
    write_overlay(copy, "production-eu", overlay)
    deployed = machine.run(DEPLOY.replace("staging", "production-eu"), copy)
    assert deployed.returncode == 0, deployed.stderr
    calls = [call for call in machine.calls() if call[0] == "kubectl"]
    assert {tuple(call[1:3]) for call in calls} == {("--namespace", namespace)}
    assert calls[0][3:5] == ["delete", f"job/{job}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overlay", ["resources: [../../base]\n", "namespace: billing\n"], ids=["namespace", "migration"]
)
def test_an_overlay_without_a_namespace_or_a_migration_is_refused(copy: Path, machine: Machine, overlay: str) -> None:
    write_overlay(copy, "bare", overlay)
    deployed = machine.run(DEPLOY.replace("staging", "bare"), copy)
    assert deployed.returncode == 2
    assert "deploy/overlays/bare must deploy the migration of deploy/base into a namespace" in deployed.stderr
    assert machine.calls() == []


@pytest.mark.slow
def test_an_overlay_with_two_migrations_is_refused(copy: Path, machine: Machine) -> None:
    write_overlay(copy, "both", "namespace: billing\nresources: [../../base, old]\n")
    old = copy / "deploy/overlays/both/old"
    shutil.copytree(copy / "deploy/base", old)
    (old / "kustomization.yaml").write_text("resources: [migration.yaml]\nnameSuffix: -old\n")
    deployed = machine.run(DEPLOY.replace("staging", "both"), copy)
    assert deployed.returncode == 2
    assert "waits for one: billing-migrate billing-migrate-old" in deployed.stderr
    assert machine.calls() == []


def write_overlay(service: Path, name: str, text: str) -> None:
    (service / "deploy/overlays" / name).mkdir()
    (service / "deploy/overlays" / name / "kustomization.yaml").write_text(text)


@pytest.mark.slow
def test_the_release_uses_the_cluster_of_the_secret_and_deletes_the_secret_afterwards(
    copy: Path, machine: Machine
) -> None:
    (machine.folder / "bin/kubectl").write_text('#!/bin/sh\ncat "$KUBECONFIG"\necho "$KUBECONFIG" >&2\necho Complete\n')
    deployed = machine.run(DEPLOY, copy, KUBE_CONFIG="the-secret")
    assert deployed.returncode == 0, deployed.stderr
    assert "the-secret" in deployed.stdout
    assert [path for path in set(deployed.stderr.split()) if path.endswith("kubeconfig")]
    assert not any(Path(path).exists() for path in deployed.stderr.split() if path.endswith("kubeconfig"))


@pytest.mark.slow
def test_every_call_goes_to_the_context_that_is_named(copy: Path, machine: Machine) -> None:
    assert machine.run(DEPLOY, copy, KUBE_CONTEXT="acme/clusters:staging").returncode == 0
    assert {call[3] for call in machine.calls()} == {"--context=acme/clusters:staging"}


@pytest.mark.slow
@pytest.mark.parametrize("conditions", ["FailureTarget", "FailureTarget Failed"])
def test_a_failed_migration_leaves_the_pods_unchanged(copy: Path, machine: Machine, conditions: str) -> None:
    machine.answers["get job/"] = (0, conditions)
    deployed = machine.run(DEPLOY, copy)
    assert deployed.returncode != 0
    assert "The migration failed" in deployed.stderr
    assert steps(machine)[-1].startswith("get job/billing-migrate")


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["delete", "apply", "wait", "get", "rollout"])
def test_a_deployment_stops_at_the_first_thing_that_fails(copy: Path, machine: Machine, failing: str) -> None:
    failed = Machine(machine.folder, {f"kubectl --namespace billing-staging {failing}": (1, ""), **machine.answers})
    deployed = failed.run(DEPLOY, copy)
    assert deployed.returncode != 0
    assert steps(machine)[-1].startswith(failing)


@pytest.mark.parametrize("image", ["", "IMAGE=billing:latest", "REPOSITORY=ghcr.io/acme/billing DIGEST="])
def test_only_a_digest_is_deployed(copy: Path, machine: Machine, image: str) -> None:
    deployed = machine.run(f"make deploy OVERLAY=staging {image}", copy)
    assert deployed.returncode != 0
    assert "IMAGE is not set to a digest" in deployed.stderr
    assert machine.calls() == []


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["nowhere", ""])
def test_only_an_overlay_that_is_there_is_deployed(copy: Path, machine: Machine, overlay: str) -> None:
    deployed = machine.run(f"make deploy OVERLAY={overlay} IMAGE=registry.example.com/billing@{DIGEST}", copy)
    assert deployed.returncode != 0
    assert machine.calls() == []


# --- the smoke test ---------------------------------------------------------------------------------------------------


@pytest.fixture
def smoke(render: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The program of the smoke test, without waiting, in a folder with an API document."""
    script = render(**VARIANTS["default"]) / "deploy/smoke.py"
    module = ModuleType("smoke")
    exec(compile(script.read_text(), script, "exec"), vars(module))
    monkeypatch.setattr(module, "PATIENCE_SECONDS", -1)
    (tmp_path / "specs").mkdir()
    paths = {"/v1/invoices/{invoice_id}": {"get": {}}, "/v1/jobs": {"post": {}}, "/v1/invoices": {"get": {}}}
    (tmp_path / "specs/openapi.json").write_text(json.dumps({"paths": paths}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SMOKE_TOKEN", raising=False)
    return module


@contextmanager
def answering(answers: dict[str, tuple[int, str]], shown: list[tuple[str, str | None]] | None = None) -> Generator[str]:
    """Run a server that answers these paths, by their last part. `shown` receives the paths and their tokens."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.rpartition("/")[2].partition("?")
            if shown is not None:
                shown.append((path, self.headers.get("Authorization")))
            status, body = answers.get(path, (404, ""))
            assert path != "readyz" or query == "version=v2"
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


READY = (200, '{"status": "ok"}')


@pytest.mark.parametrize("status", [200, 401, 403])
def test_a_ready_pod_of_the_version_that_answers_passes(smoke: ModuleType, status: int) -> None:
    with answering({"readyz": READY, "invoices": (status, "[]")}) as url:
        assert smoke.main(url, "v2") == 0


REFUSED = {
    "another version": {"readyz": (503, '{"status": "unavailable"}'), "invoices": (200, "[]")},
    "no status": {"readyz": (200, '{"version": "v2"}'), "invoices": (200, "[]")},
    "something else": {"readyz": (200, "<html>"), "invoices": (200, "[]")},
    "not ready": {"readyz": (503, '{"version": "v2"}'), "invoices": (200, "[]")},
    "an error of its own": {"readyz": READY, "invoices": (500, "{}")},
    "a path that leads nowhere": {"readyz": READY},
}


@pytest.mark.parametrize("answers", [pytest.param(answers, id=name) for name, answers in REFUSED.items()])
def test_anything_else_does_not(smoke: ModuleType, answers: dict[str, tuple[int, str]]) -> None:
    with answering(answers) as url:
        assert smoke.main(url, "v2") == 1


@pytest.mark.parametrize(("status", "ends"), [(200, 0), (401, 1), (403, 1)])
def test_a_token_has_to_be_accepted_and_is_shown_to_the_list_alone(
    smoke: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int, ends: int
) -> None:
    monkeypatch.setenv("SMOKE_TOKEN", "a.b.c\n")
    shown: list[tuple[str, str | None]] = []
    with answering({"readyz": READY, "invoices": (status, "[]")}, shown) as url:
        assert smoke.main(url, "v2") == ends
    assert shown == [("readyz", None), ("invoices", "Bearer a.b.c")]
    said = "".join(capsys.readouterr())
    assert "a.b.c" not in said
    assert ("SMOKE_TOKEN is refused" in said) == (ends == 1)


def test_another_host_gets_no_token(smoke: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMOKE_TOKEN", "a.b.c")
    shown: list[tuple[str, str | None]] = []
    with (
        answering({"elsewhere": (200, "[]")}, shown) as other,
        answering({"readyz": READY, "invoices": (302, f"{other}elsewhere")}) as url,
    ):
        assert smoke.main(url, "v2") == 0
    assert shown == [("elsewhere", None)]


@pytest.mark.parametrize("token", ["Bearer a.b.c", "a.b\nX: y", "žeton"])
def test_a_token_that_cannot_be_a_header_is_refused_and_not_repeated(
    smoke: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    monkeypatch.setenv("SMOKE_TOKEN", token)
    assert smoke.main("http://127.0.0.1:1", "v2") == 2
    said = capsys.readouterr().err
    assert "SMOKE_TOKEN is no access token" in said
    assert token not in said


def test_nobody_there_does_not_pass_either(smoke: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with answering({}) as gone:
        pass
    assert smoke.main(gone, "v2") == 1
    assert "refused" in capsys.readouterr().err


def test_a_smoke_test_of_nothing_in_particular_is_refused(copy: Path, machine: Machine) -> None:
    asked = machine.run("make smoke VERSION=v2", copy)
    assert asked.returncode != 0
    assert "make smoke URL=" in asked.stderr
