"""Overlays that undo the promises of the base."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import FleetError
from fleet.judges.kustomize import Manifest, containers, pod, render_overlay
from fleet.service.service import Service
from tests.fleet.conventions.mutations import Broken, Mutations, append, both, each_alone, edit, only, texts_of
from tests.support import golang
from tests.support.manifests import KUSTOMIZE, manifests

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]

KUSTOMIZATION = "deploy/overlays/production/kustomization.yaml"


def patched(kind: str, operation: str, path: str, value: str = "") -> Broken:
    """Append a JSON patch to production. `patches` is the last key of the seed."""
    lines = [f"  - target: {{kind: {kind}}}", "    patch: |", f"      - op: {operation}", f"        path: {path}"]
    if value:
        lines.append(f"        value: {value}")
    return append(KUSTOMIZATION, "\n".join(["", *lines, ""]))


# Each kind of patch, on a list that is merged and on a list that is replaced.
PATCHES = """
  - patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: billing-worker}
      spec:
        template:
          spec:
            securityContext: {$patch: delete}
            containers:
              - name: worker
                args: [work, --verbose]
                securityContext: {$patch: replace, privileged: true, runAsUser: null}
                env:
                  - {name: EXTRA, value: more}
                resources:
                  limits: {memory: 512Mi}
              - name: sidecar
                image: billing:set-by-overlay
            volumes:
              - {name: cache, emptyDir: {}}
  - target: {kind: Deployment, name: billing}
    patch: |
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: MORE, value: "1"}}
      - {op: remove, path: /spec/template/spec/containers/0/livenessProbe}
replicas:
  - {name: billing-worker, count: 3}
"""

MUTATIONS: Mutations = {
    "no overlay for production": (
        "deploy-rendered",
        lambda service: shutil.rmtree(service / "deploy/overlays/production"),
        "no overlay for production",
    ),
    "an overlay without the base": (
        "deploy-rendered",
        edit(KUSTOMIZATION, "  - ../../base\n", ""),
        "the overlay renders no Deployment",
    ),
    "an overlay under another name": (
        "deploy-rendered",
        lambda service: (service / "deploy/overlays/staging/kustomization.yaml").rename(
            service / "deploy/overlays/staging/kustomization.yml"
        ),
        "the checks read only files with the name kustomization.yaml",
    ),
    "an overlay that cannot be followed": (
        "deploy-rendered",
        append(KUSTOMIZATION, "\nhelmCharts: []\n"),
        "uses helmCharts",
    ),
    "a probe taken out": (
        "deploy-probes",
        patched("Deployment", "remove", "/spec/template/spec/containers/0/livenessProbe"),
        "has no livenessProbe",
    ),
    "no memory limit": (
        "deploy-resources",
        patched("Deployment", "remove", "/spec/template/spec/containers/0/resources/limits"),
        "has no resources limits.memory",
    ),
    "one replica": (
        "deploy-replicas",
        patched("HorizontalPodAutoscaler", "replace", "/spec/minReplicas", "1"),
        "Deployment billing may have 1 replicas",
    ),
    "one replica in one of two regions": (
        "deploy-replicas",
        both(
            lambda service: shutil.copytree(
                service / "deploy/overlays/production", service / "deploy/overlays/prod-eu"
            ),
            edit("deploy/overlays/prod-eu/kustomization.yaml", "        value: 2\n", "        value: 1\n"),
        ),
        "Deployment billing may have 1 replicas",
    ),
    "one worker": (
        "deploy-replicas",
        append(KUSTOMIZATION, "\nreplicas: [{name: billing-worker, count: 1}]\n"),
        "Deployment billing-worker may have 1 replicas",
    ),
    "no budget": (
        "deploy-disruption-budget",
        append(
            KUSTOMIZATION,
            "  - patch: |\n      apiVersion: policy/v1\n      kind: PodDisruptionBudget\n      metadata: {name: billing}\n      $patch: delete\n",
        ),
        "no PodDisruptionBudget covers Deployment billing",
    ),
    "a budget that allows everything": (
        "deploy-disruption-budget",
        patched("PodDisruptionBudget", "replace", "/spec/maxUnavailable", "100%"),
        "no PodDisruptionBudget covers Deployment billing",
    ),
    "the node's disk": (
        "deploy-restricted",
        patched("Deployment", "add", "/spec/template/spec/volumes/-", "{name: host, hostPath: {path: /}}"),
        "volume host, mounts the node's own disk",
    ),
    "a security context that a patch deletes": (
        "deploy-restricted",
        append(
            KUSTOMIZATION,
            "  - patch: |\n      apiVersion: apps/v1\n      kind: Deployment\n      metadata: {name: billing}\n"
            "      spec: {template: {spec: {securityContext: {$patch: delete}}}}\n",
        ),
        "may run as root",
    ),
    "a root that can be written": (
        "deploy-restricted",
        patched(
            "Deployment", "replace", "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem", "false"
        ),
        "may write to its root",
    ),
    "root": (
        "deploy-restricted",
        patched("Deployment", "replace", "/spec/template/spec/securityContext/runAsUser", "0"),
        "may run as root",
    ),
    "no policy": (
        "deploy-network-policy",
        append(
            KUSTOMIZATION,
            "  - target: {kind: NetworkPolicy}\n    patch: |\n      apiVersion: networking.k8s.io/v1\n      kind: NetworkPolicy\n      metadata: {name: any}\n      $patch: delete\n",
        ),
        "no NetworkPolicy limits egress and ingress of Deployment billing",
    ),
    "everything allowed": (
        "deploy-network-policy",
        patched("NetworkPolicy, name: billing", "add", "/spec/egress/-", "{}"),
        "allows egress to anybody",
    ),
    "a tag that moves": (
        "deploy-image-pinned",
        edit(KUSTOMIZATION, "newTag: 0.1.0", "newTag: latest"),
        "runs registry.example.com/billing:latest",
    ),
    "a secret written out": (
        "deploy-no-secrets",
        patched(
            "Deployment", "add", "/spec/template/spec/containers/0/env/-", "{name: MAIL_PASSWORD, value: in-clear}"
        ),
        "the value of MAIL_PASSWORD is written out",
    ),
    "a secret among the settings": (
        "deploy-no-secrets",
        edit(
            KUSTOMIZATION,
            "      - TRACE_SAMPLE_RATIO=0.1\n",
            "      - TRACE_SAMPLE_RATIO=0.1\n      - TOKEN_TTL=60\n      - MAIL_PASSWORD=in-clear\n",
        ),
        "the value of MAIL_PASSWORD is written out",
    ),
    "a secret generated": (
        "deploy-no-secrets",
        append(KUSTOMIZATION, "\nsecretGenerator: [{name: mail, literals: [user=x]}]\n"),
        "the overlay generates a Secret",
    ),
    "an image for root": (
        "image-non-root",
        edit("Dockerfile", "USER 65532:65532", "USER root"),
        "the user of the image is root",
    ),
    "an image that names no user": (
        "image-non-root",
        edit("Dockerfile", "USER 65532:65532\n", ""),
        "the last stage has no USER",
    ),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


@pytest.mark.parametrize("patch", ["", PATCHES], ids=["as seeded", "patched"])
@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_an_overlay_is_followed_as_kustomize_does(service: Path, overlay: str, patch: str) -> None:
    with (service / f"deploy/overlays/{overlay}/kustomization.yaml").open("a") as file:
        file.write(patch)
    theirs = {name_of(one): judged(one) for one in manifests(service, overlay) if one["kind"] != "ConfigMap"}
    ours = {name_of(one): judged(one) for one in render_overlay(Service(service), f"deploy/overlays/{overlay}")}
    assert ours == theirs


NOBODY = "  - patch: |\n      apiVersion: apps/v1\n      kind: Deployment\n      metadata: {name: bills}\n"
REFUSED: dict[str, Broken] = {
    "a patch of what is not there": append(KUSTOMIZATION, f"{NOBODY}      spec: {{replicas: 1}}\n"),
    "replicas of what is not there": append(KUSTOMIZATION, "\nreplicas: [{name: bills, count: 2}]\n"),
    "an overlay of itself": edit(KUSTOMIZATION, "  - ../../base\n", "  - ../../base\n  - ../production\n"),
}


@pytest.mark.parametrize("broken", REFUSED.values(), ids=REFUSED)
def test_a_kustomization_that_kustomize_refuses_is_reported(service: Path, broken: Broken) -> None:
    broken(service)
    command = [golang.built("kustomize", KUSTOMIZE), "build", "deploy/overlays/production"]
    assert subprocess.run(command, cwd=service, capture_output=True, timeout=120).returncode != 0
    with pytest.raises(FleetError):
        render_overlay(Service(service), "deploy/overlays/production")


@pytest.mark.parametrize(
    "directive", ["{$retainKeys: [type], type: Recreate}", "{$deleteFromPrimitiveList/x: [a]}", "{a: {$patch: merge}}"]
)
def test_a_directive_that_is_not_understood_is_said(service: Path, directive: str) -> None:
    append(KUSTOMIZATION, f"{NOBODY.replace('bills', 'billing')}      spec: {{strategy: {directive}}}\n")(service)
    with pytest.raises(FleetError, match="which fleet cannot render"):
        render_overlay(Service(service), "deploy/overlays/production")


@pytest.mark.parametrize(
    ("rule", "is_open"),
    [
        ("{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}", True),
        ("{to: [{namespaceSelector: {}}]}", True),
        ("{ports: [{port: 443}]}", True),
        ("{to: [{namespaceSelector: {}}], ports: [{port: 1, endPort: 65535}]}", True),
        ("{to: [{namespaceSelector: {}}], ports: [{protocol: TCP}]}", True),
        ("{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}", False),
        ("{to: [{podSelector: {}}]}", False),
        ("{to: [{namespaceSelector: {matchLabels: {name: mail}}}]}", False),
    ],
)
def test_a_rule_of_the_network_that_names_no_peers_or_everybody_is_seen(
    service: Path, rule: str, is_open: bool
) -> None:
    patched("NetworkPolicy, name: billing", "add", "/spec/egress/-", rule)(service)
    assert any("allows egress to anybody" in what for what in texts_of(service, "deploy-network-policy")) is is_open


def test_a_service_with_identity_names_its_callers_and_not_its_namespace(service: Path) -> None:
    assert texts_of(service, "deploy-network-policy") == []
    edit(".copier-answers.yml", "auth: none", "auth: oidc")(service)
    found = texts_of(service, "deploy-network-policy")
    assert all("NetworkPolicy billing-http allows ingress from every pod of its namespace" in one for one in found)
    assert len(found) == 2, "one for each overlay"


def test_a_manifest_that_no_cluster_would_take_is_said(service: Path) -> None:
    patched("HorizontalPodAutoscaler", "replace", "/spec/minReplicas", '"2"')(service)
    only(service, "deploy-replicas", "has a manifest that no cluster would accept")


def name_of(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def judged(manifest: Manifest) -> Manifest:
    """Return the parts that conventions check: Kustomize also writes names of generated objects and common labels."""
    spec = dict(manifest.get("spec") or {})
    fields = ("replicas", "minReplicas", "maxReplicas", "policyTypes", "maxUnavailable")
    own = {key: value for key, value in pod(manifest).items() if key in ("securityContext", "volumes")}
    of_containers = [
        {key: value for key, value in container.items() if key != "envFrom"} for container in containers(manifest)
    ]
    return in_order({key: spec[key] for key in fields if key in spec} | {"pod": own, "containers": of_containers})


def in_order(value: Any) -> Any:
    """Sort named items by their name: Kustomize puts items that a patch adds first."""
    if isinstance(value, dict):
        return {key: in_order(one) for key, one in value.items()}
    if isinstance(value, list) and all(isinstance(one, dict) and "name" in one for one in value):
        return sorted(map(in_order, value), key=lambda one: one["name"])
    return value
