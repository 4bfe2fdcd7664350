"""The deployed manifests: valid for Kubernetes and its tools, restricted, reachable and scaled by the answers."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from chassis.brokers import Kind
from chassis.brokers.kafka.subscription import group_name
from chassis.brokers.nats.streams import stream_name
from chassis.brokers.rabbitmq.connection import queue_name
from chassis.identity import OidcSettings as Settings
from chassis.web import probes

from tests.support import pypi
from tests.support.answers import VARIANTS
from tests.support.manifests import OVERLAYS, Manifest, built, kinds, manifests, part, pod, pod_labels, switch_on
from tests.support.needs import CHECKOV, KEDA_MODELS
from tests.support.network import Pod, lets_in, lets_out
from tests.support.paths import ROOT
from tests.support.services import Render

# These tests are in the group of tests/delivery/test_delivery.py, so that one worker renders the services of both.
pytestmark = pytest.mark.xdist_group("delivery")

OF_OPERATORS = ("PrometheusRule", "ScaledObject")
"""Kinds that operators add to Kubernetes."""

ON_BROKER = {"nats": VARIANTS["every-type"], "kafka": VARIANTS["many-words"], "rabbitmq": VARIANTS["both-rabbitmq"]}


@pytest.fixture
def service(render: Render, tmp_path: Path) -> Path:
    """A copy of a service with messages, to break."""
    return Path(shutil.copytree(render(**VARIANTS["many-words"]), tmp_path / "service"))


# --- the real tools -------------------------------------------------------------------------------------------------


def validate(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.slow
def test_every_manifest_is_valid_for_kubernetes(service: Path) -> None:
    switch_on(service, "production", "monitoring", "namespace", "keda")
    for overlay in OVERLAYS:
        for manifest in manifests(service, overlay):
            if manifest["kind"] not in OF_OPERATORS:
                validate(manifest)


@pytest.mark.slow
def test_a_misspelt_field_is_not_valid_for_kubernetes(service: Path) -> None:
    path = service / "deploy/base/deployment.yaml"
    path.write_text(path.read_text().replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        validate(part(manifests(service, "staging"), "http"))


@pytest.mark.slow
def test_checkov_finds_only_the_broken_setting(service: Path) -> None:
    switch_on(service, "production", "monitoring", "namespace", "keda")
    healthy = built(service, "production")
    (service / "healthy.yaml").write_text(healthy)
    (service / "broken.yaml").write_text(
        healthy.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    )
    # checkov runs in the service's folder, which has .checkov.yaml, and calls no other host.
    files = ["--file", "healthy.yaml", "broken.yaml"]
    checked = subprocess.run(
        [
            pypi.programs(CHECKOV) / "checkov",
            *files,
            "--output",
            "json",
            "--skip-download",
            "--download-external-modules",
            "false",
        ],
        cwd=service,
        capture_output=True,
        text=True,
        timeout=300,
    )
    report = json.loads(checked.stdout)
    assert report["summary"]["passed"] > 400
    found = {(one["file_path"], one["check_id"]) for one in report["results"]["failed_checks"]}
    assert found == {("/broken.yaml", "CKV_K8S_22")}


def test_every_rule_of_checkov_that_is_skipped_has_a_reason(render: Render) -> None:
    text = (render(**VARIANTS["default"]) / ".checkov.yaml").read_text()
    lines = text.partition("skip-check:\n")[2].splitlines()
    assert len(lines) == len(yaml.safe_load(text)["skip-check"])
    assert all(len(line.partition(" # ")[2]) > 20 for line in lines)


# --- the deployed manifests -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session", params=OVERLAYS)
def deployed(request: pytest.FixtureRequest, render: Render) -> list[Manifest]:
    """The manifests of a service with messages: HTTP pods, workers and the migration."""
    return manifests(render(**VARIANTS["many-words"]), request.param)


@pytest.mark.slow
def test_without_messages_nothing_of_a_worker_is_deployed(render: Render) -> None:
    found = manifests(render(**VARIANTS["default"]), "production")
    assert [one["metadata"]["name"] for one in kinds(found, "Deployment", "PodDisruptionBudget")] == ["billing"] * 2
    assert [one["metadata"]["name"] for one in kinds(found, "NetworkPolicy")] == [
        "billing",
        "billing-from-ingress",
        "billing-to-database",
        "billing-to-issuer",
        "billing-to-telemetry",
    ]
    assert "broker" not in json.dumps(found).lower()


@pytest.mark.slow
def test_the_chassis_answers_the_probes_of_the_manifests(deployed: list[Manifest]) -> None:
    for component in ("http", "worker"):
        (container,) = pod(part(deployed, component))["containers"]
        asked = [container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
        assert [each["path"] for each in asked] == ["/startupz", "/livez", "/readyz"]
        assert {each["path"] for each in asked} == {route.path for route in probes.router.routes}  # ty: ignore[missing-attribute]
        assert {each["port"] for each in asked} == {"http"}
        assert container["ports"] == [{"name": "http", "containerPort": Settings.model_fields["http_port"].default}]


@pytest.mark.slow
def test_a_pod_has_time_to_drain_and_to_finish(deployed: list[Manifest]) -> None:
    (config,) = kinds(deployed, "ConfigMap")
    finishing = float(config["data"]["SHUTDOWN_TIMEOUT_SECONDS"])
    draining = float(config["data"]["DRAIN_SECONDS"])
    # After the drain and the last requests, the pool closes, and the export of each telemetry signal may take its time
    # limit once more.
    assert pod(part(deployed, "http"))["terminationGracePeriodSeconds"] >= draining + finishing + 10
    assert pod(part(deployed, "worker"))["terminationGracePeriodSeconds"] >= finishing + 10


@pytest.mark.slow
def test_every_pod_is_restricted(deployed: list[Manifest]) -> None:
    workloads = kinds(deployed, "Deployment", "Job")
    assert len(workloads) == 3
    for workload in workloads:
        spec = pod(workload)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert container["resources"].keys() == {"requests", "limits"}
        mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
        tokens = {} if workload["kind"] == "Job" else {"/var/run/secrets/tokens": True}
        assert mounts == {"/tmp": False} | tokens


@pytest.mark.slow
def test_every_selector_chooses_its_own_pods_and_no_others(deployed: list[Manifest]) -> None:
    pods = {name: pod_labels(part(deployed, name)).items() for name in ("http", "worker", "migrate")}

    def chosen(selector: dict[str, str]) -> set[str]:
        return {name for name, labels in pods.items() if selector.items() <= labels}

    (service,) = kinds(deployed, "Service")
    assert chosen(service["spec"]["selector"]) == {"http"}
    for component in ("http", "worker"):
        deployment = part(deployed, component)
        assert chosen(deployment["spec"]["selector"]["matchLabels"]) == {component}
        spreads = [one["topologyKey"] for one in pod(deployment)["topologySpreadConstraints"]]
        assert spreads == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for spread in pod(deployment)["topologySpreadConstraints"]:
            assert chosen(spread["labelSelector"]["matchLabels"]) == {component}
    budgets = kinds(deployed, "PodDisruptionBudget")
    assert [chosen(one["spec"]["selector"]["matchLabels"]) for one in budgets] == [{"http"}, {"worker"}]
    (scaler,) = kinds(deployed, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == part(deployed, "http")["metadata"]["name"]
    assert "replicas" not in part(deployed, "http")["spec"]
    assert part(deployed, "worker")["spec"]["replicas"] > 1, "another one takes over the relay"


def pods(found: list[Manifest], *components: str) -> dict[str, Pod]:
    """Return the pods of these components, as a network policy sees them."""
    ports = {"http": Settings.model_fields["http_port"].default}
    return {
        name: Pod(part(found, name)["metadata"]["namespace"], pod_labels(part(found, name)), ports)
        for name in components
    }


# The port of each peer, and the pods of a service that reach it. Other servers at that port are not reached.
PEERS = {
    "names": (Pod("kube-system", {"k8s-app": "kube-dns"}), 53, {"http", "worker", "migrate"}),
    "PostgreSQL": (Pod("databases"), 5432, {"http", "worker", "migrate"}),
    "the collector": (Pod("observability"), 4318, {"http", "worker", "migrate"}),
    "NATS": (Pod("nats"), 4222, {"worker"}),
    "Kafka": (Pod("kafka"), 9092, {"worker"}),
    "Kafka by TLS": (Pod("kafka"), 9093, {"worker"}),
    "RabbitMQ": (Pod("rabbitmq"), 5672, {"worker"}),
    "RabbitMQ by TLS": (Pod("rabbitmq"), 5671, {"worker"}),
}
STRANGERS = (Pod("default"), Pod("kube-system", {"k8s-app": "metrics-server"}), Pod("shop-production"))


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("broker", ON_BROKER)
def test_a_pod_reaches_its_named_peers_and_nobody_else(render: Render, broker: str, overlay: str) -> None:
    found = manifests(render(**ON_BROKER[broker]), overlay)
    own = pods(found, "http", "worker", "migrate")
    for name, (peer, port, components) in PEERS.items():
        is_ours = peer.namespace not in ON_BROKER or peer.namespace == broker
        expected = components if is_ours else set()
        assert {each for each, one in own.items() if lets_out(found, one, peer, port)} == expected, name
        for stranger in STRANGERS:
            assert not any(lets_out(found, one, stranger, port) for one in own.values()), name
            assert lets_out(found, own["http"], stranger, 443), "the issuer, whose address the team has not named yet"
    (config,) = kinds(found, "ConfigMap")
    collector = urlsplit(config["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"])
    assert (collector.hostname, collector.port) == ("otel-collector.observability", 4318)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_own_namespace_and_the_ingress_controller_reach_the_api_and_nobody_else(
    render: Render, overlay: str
) -> None:
    found = manifests(render(**VARIANTS["short"]), overlay)
    own = pods(found, "http", "worker", "migrate")
    callers = {"neighbour": Pod(own["http"].namespace), "ingress": Pod("ingress-nginx")}
    for caller in (*callers.values(), *STRANGERS):
        expected = {"http"} if caller in callers.values() else set()
        assert {name for name, one in own.items() if lets_in(found, one, caller, 8000)} == expected, caller
        assert not any(lets_in(found, one, caller, 9000) for one in own.values())


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_named_callers_reach_the_api_of_a_service_with_identity(render: Render, overlay: str) -> None:
    found = manifests(render(**VARIANTS["queues-nats"]), overlay)
    own = pods(found, "http", "worker", "migrate")
    assert {name for name, one in own.items() if lets_in(found, one, Pod("ingress-nginx"), 8000)} == {"http"}
    for caller in (Pod(own["http"].namespace), own["worker"], *STRANGERS):
        assert not any(lets_in(found, one, caller, 8000) for one in own.values()), caller


@pytest.mark.slow
def test_the_pods_of_a_service_with_identity_have_the_tokens_that_the_overlay_names(
    render: Render, tmp_path: Path
) -> None:
    service = Path(shutil.copytree(render(**VARIANTS["queues-nats"]), tmp_path / "service"))
    for manifest in (before := manifests(service, "production")):
        validate(manifest)
    assert [projected(before, name) for name in ("http", "worker")] == [[], []]
    page = (service / "docs/identity.md").read_text()
    (block,) = re.findall(r"```yaml\n# deploy/overlays/production/kustomization.yaml\n(.*?)```", page, re.DOTALL)
    overlay = service / "deploy/overlays/production/kustomization.yaml"
    given, content = yaml.safe_load(block), yaml.safe_load(overlay.read_text())
    content["patches"] += given["patches"]
    content["configMapGenerator"][0]["literals"] += given["configMapGenerator"][0]["literals"]
    overlay.write_text(yaml.safe_dump(content))
    for manifest in (after := manifests(service, "production")):
        validate(manifest)
    for name in ("http", "worker"):
        (source,) = projected(after, name)
        assert source == {
            "serviceAccountToken": {"audience": "customers", "path": "customers", "expirationSeconds": 3600}
        }
        (mount,) = [
            each for each in pod(part(after, name))["containers"][0]["volumeMounts"] if each["name"] == "tokens"
        ]
        (config,) = kinds(after, "ConfigMap")
        assert (mount["mountPath"], mount["readOnly"]) == (config["data"]["OIDC_TOKEN_FOLDER"], True)


def projected(found: list[Manifest], name: str) -> list[Any]:
    """Return the sources of the volume with the tokens of a service."""
    (volume,) = [each for each in pod(part(found, name))["volumes"] if each["name"] == "tokens"]
    return volume["projected"]["sources"]


@pytest.mark.slow
def test_the_same_image_migrates_before_serving_and_needs_only_the_secret(deployed: list[Manifest]) -> None:
    job = part(deployed, "migrate")
    (serving,), (working,), (migrating,) = (
        pod(part(deployed, component))["containers"] for component in ("http", "worker", "migrate")
    )
    assert serving["image"] == working["image"] == migrating["image"]
    assert (serving["args"], working["args"], migrating["args"]) == (["serve"], ["work"], ["migrate"])
    assert job["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "PreSync"
    assert "envFrom" not in migrating
    assert "serviceAccountName" not in pod(job)
    required = [one for one in migrating["env"] if one["name"] == "REQUIRE_TLS"]
    assert serving["env"] == [one for one in migrating["env"] if one not in required]
    assert [(one["name"], "secretKeyRef" in one["valueFrom"]) for one in working["env"]] == [
        ("DATABASE_URL", True),
        ("BROKER_URL", True),
    ]
    assert serving["env"] == working["env"][:1]


@pytest.mark.slow
def test_production_refuses_to_start_without_tls_and_staging_does_not(render: Render) -> None:
    for overlay, expected in (("staging", {None}), ("production", {"true"})):
        found = manifests(render(**VARIANTS["many-words"]), overlay)
        (config,) = kinds(found, "ConfigMap")
        (migrating,) = pod(part(found, "migrate"))["containers"]
        given = {one["name"]: one.get("value") for one in migrating["env"]}
        assert {config["data"].get("REQUIRE_TLS"), given.get("REQUIRE_TLS")} == expected
        for component in ("http", "worker"):
            (container,) = pod(part(found, component))["containers"]
            assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]


@pytest.mark.slow
def test_the_service_reads_every_deployed_setting(deployed: list[Manifest], render: Render) -> None:
    (config,) = kinds(deployed, "ConfigMap")
    compose = yaml.safe_load((render(**VARIANTS["default"]) / "compose.yaml").read_text())["services"]
    named = {*config["data"], *compose["service"]["environment"], *compose["migrate"]["environment"]}
    assert {name.lower() for name in named} <= Settings.model_fields.keys()
    url = f"postgresql://x/?sslmode=verify-full&sslrootcert={__file__}"
    settings = Settings(database_url=url, **{name.lower(): value for name, value in config["data"].items()})
    assert (settings.serve_docs, settings.probe_details) == (False, False)


# --- components that an overlay switches on -------------------------------------------------------------------------


KEDA_CHECK = """
import json, sys
from cloudcoil.models.keda.v1alpha1 import ScaledObject

for given in json.load(sys.stdin):
    kept = ScaledObject.model_validate(given).model_dump(mode="json", by_alias=True, exclude_unset=True)
    print(json.dumps(sorted(given["spec"].keys() - kept["spec"].keys())))
"""


def unknown_to_keda(*given: Manifest) -> list[list[str]]:
    """Return the fields of each ScaledObject that KEDA's definition does not have."""
    python = pypi.programs(KEDA_MODELS) / "python"
    checked = subprocess.run([python, "-c", KEDA_CHECK], input=json.dumps(given), capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    return [json.loads(line) for line in checked.stdout.splitlines()]


def scaled(service: Path) -> Manifest:
    return next(yaml.safe_load_all((service / "deploy/components/keda/scaledobject.yaml").read_text()))


@pytest.mark.slow
def test_keda_knows_every_field_and_refuses_a_misspelt_field(render: Render) -> None:
    found = [scaled(render(**answers)) for answers in ON_BROKER.values()]
    misspelt = {**found[0], "spec": {**found[0]["spec"], "minReplicas": 2}}
    assert unknown_to_keda(*found, misspelt) == [[], [], [], ["minReplicas"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (ON_BROKER["kafka"], [(group_name, "consumerGroup", Kind.EVENT), (group_name, "consumerGroup", Kind.JOB)]),
        (VARIANTS["approved"], [(group_name, "consumerGroup", Kind.EVENT)]),
        (ON_BROKER["rabbitmq"], [(queue_name, "queueName", Kind.JOB)]),
        (ON_BROKER["nats"], [(stream_name, "stream", Kind.JOB)]),
    ],
    ids=["kafka", "events on kafka", "rabbitmq", "nats"],
)
def test_keda_counts_the_messages_that_wait_for_the_workers(
    render: Render, tmp_path: Path, answers: dict[str, Any], expected: list[tuple[Any, str, Kind]]
) -> None:
    service = Path(shutil.copytree(render(**answers), tmp_path / "service"))
    switch_on(service, "production", "keda")
    found = manifests(service, "production")
    (scaled,) = kinds(found, "ScaledObject")
    name = answers["service_name"]
    triggers = [trigger["metadata"] for trigger in scaled["spec"]["triggers"]]
    assert [trigger[key] for trigger, (_, key, _) in zip(triggers, expected, strict=True)] == [
        name_of(kind, name) for name_of, _, kind in expected
    ]
    worker = part(found, "worker")
    assert scaled["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    assert "replicas" not in worker["spec"]
    assert scaled["spec"]["minReplicaCount"] > 1, "another one takes over the relay"
    assert scaled["spec"]["maxReplicaCount"] <= Settings.model_fields["kafka_partitions"].default


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["default", "short", "events-rabbitmq"])
def test_where_more_workers_would_only_stand_by_there_is_no_keda(render: Render, variant: str) -> None:
    deploy = render(**VARIANTS[variant]) / "deploy"
    assert not (deploy / "components/keda").exists()
    assert not any("keda" in path.read_text() for path in deploy.rglob("*.yaml"))


@pytest.mark.slow
def test_the_namespace_is_the_overlays_and_refuses_unrestricted_pods(service: Path) -> None:
    switch_on(service, "production", "namespace")
    found = manifests(service, "production")
    (namespace,) = kinds(found, "Namespace")
    assert namespace["metadata"]["name"] == part(found, "http")["metadata"]["namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.slow
def test_monitoring_has_the_labels_by_which_operator_and_sidecar_find_rules_and_dashboard(service: Path) -> None:
    before = manifests(service, "production")
    switch_on(service, "production", "monitoring")
    brought = [one for one in manifests(service, "production") if one not in before]
    assert [one["apiVersion"] for one in kinds(brought, "PrometheusRule")] == ["monitoring.coreos.com/v1"] * 2
    (dashboard,) = kinds(brought, "ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["dashboard.json"])["panels"]
    assert len(brought) == 3


# --- edits of an overlay on the how-to pages ------------------------------------------------------------------------


def follow(page: str, service: Path, name: str) -> list[Manifest]:
    """Build the production overlay of a service, with all edits that the page shows for `billing`."""
    overlay = service / "deploy/overlays/production/kustomization.yaml"
    content = yaml.safe_load(overlay.read_text())
    blocks = re.findall(r"```yaml\n# deploy/overlays/production/\S+\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for block in blocks:
        for key, more in yaml.safe_load(block.replace("billing", name)).items():
            content[key] = [*(content.get(key) or []), *more]
    overlay.write_text(yaml.safe_dump(content))
    return manifests(service, "production")


@pytest.mark.slow
def test_an_overlay_sets_objectives_and_labels_as_the_page_says(service: Path) -> None:
    found = follow("docs/how-to/watch-a-service.md", service, "customer-loyalty-points")
    rules, _ = kinds(found, "PrometheusRule")
    failed, slow = rules["spec"]["groups"][0]["rules"]
    assert (failed["expr"], slow["expr"]) == ("vector(0.005)", "vector(0.01)")
    assert rules["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.slow
def test_an_overlay_tells_keda_where_the_broker_is_as_the_page_says(service: Path) -> None:
    found = follow("docs/how-to/scale-the-workers.md", service, "customer-loyalty-points")
    (scaled,) = kinds(found, "ScaledObject")
    first, second = (trigger["metadata"]["bootstrapServers"] for trigger in scaled["spec"]["triggers"])
    assert (first, second.partition(":")[0]) == ("kafka.kafka:9092", "set-by-overlay")


@pytest.mark.slow
def test_a_service_that_calls_another_service_by_the_page_may_connect(render: Render, tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/call-another-service.md").read_text()
    found = {}
    for name in ("billing", "customers"):
        service = Path(shutil.copytree(render(service_name=name), tmp_path / name))
        peers = service / "deploy/overlays/production/peers.yaml"
        before = manifests(service, "production")
        (documented,) = re.findall(
            rf"```yaml\n# {name}: deploy/overlays/production/peers.yaml\n(.*?)```", page, re.DOTALL
        )
        peers.write_text(f"{peers.read_text()}{documented}")
        found[name] = (before, manifests(service, "production"))
    calling, called = (pods(after, "http")["http"] for _, after in found.values())
    for index, reached in enumerate((False, True)):
        assert lets_out(found["billing"][index], calling, called, 8000) is reached
        assert lets_in(found["customers"][index], called, calling, 8000) is reached
    # The URL on the page has the name and the port of the Service, which leads to the port of the pods.
    (pattern,) = set(re.findall(r"`(http://{name}[\w.:{}-]*)`", page))
    url = pattern.replace("{name}", "customers")
    (service,) = kinds(found["customers"][1], "Service")
    assert urlsplit(url).hostname == f"{service['metadata']['name']}.{called.namespace}"
    assert [(urlsplit(url).port or 80) == port["port"] for port in service["spec"]["ports"]] == [True]
    assert not lets_in(found["customers"][1], called, Pod("shop-production"), 8000)
