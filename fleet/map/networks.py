"""Read the overlays of a service as networks: its pods, its policies, and the addresses that its settings have there."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fleet.errors import FleetError
from fleet.judges.kustomize import (
    FILE,
    Manifest,
    config_maps,
    containers,
    overlays,
    pod,
    render_overlay,
    template_labels,
)
from fleet.judges.network_policy import Pods
from fleet.service.service import Service

NAME_OF_NAMESPACE = "kubernetes.io/metadata.name"
"""The label that each namespace has."""


@dataclass(frozen=True)
class Network:
    """One overlay. `settings` are the variables of the pods; a value is null if the repository does not have it."""

    folder: str
    namespace: str
    workloads: tuple[Pods, ...]
    policies: tuple[Manifest, ...]
    services: dict[str, Manifest]
    settings: dict[str, str | None]

    @property
    def environment(self) -> str:
        """The name of the overlay, as in production."""
        return posixpath.basename(self.folder)


def networks(service: Service) -> Iterator[Network]:
    """Read each overlay that can be rendered and has no policies of another kind."""
    for folder in overlays(service):
        try:
            found = _network(service, folder)
        except (FleetError, AttributeError, KeyError, TypeError, ValueError):
            continue
        if found is not None:
            yield found


def _network(service: Service, folder: str) -> Network | None:
    manifests = render_overlay(service, folder)
    policies = [one for one in manifests if "NetworkPolicy" in one["kind"]]
    if any(one["apiVersion"] != "networking.k8s.io/v1" for one in policies):
        return None  # policies of Cilium and Calico may allow other traffic
    (kustomization,) = service.yaml(f"{folder}/{FILE}")
    namespace = str(kustomization.get("namespace") or "")
    labels = {NAME_OF_NAMESPACE: namespace} if namespace else {}
    for one in manifests:
        labels |= (one["metadata"].get("labels") or {}) if one["kind"] == "Namespace" else {}
    added = template_labels(service, folder)
    # A Job, such as the migration, calls nobody.
    running = [one for one in manifests if one["kind"] != "Job" and pod(one)]
    if any(pod(one).get("hostNetwork") for one in running):
        return None  # policies do not apply to pods in the network of their node
    return Network(
        folder,
        namespace,
        tuple(Pods(_labels(one) | added, _ports(one), namespace, labels) for one in running),
        tuple(one["spec"] for one in policies),
        {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "Service"},
        _settings(service, folder, manifests),
    )


def _labels(workload: Manifest) -> dict[str, str]:
    spec = workload["spec"]["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else workload["spec"]
    return dict((spec["template"].get("metadata") or {}).get("labels") or {})


def _ports(workload: Manifest) -> dict[str, int]:
    """Return the named ports of TCP."""
    ports = [port for one in containers(workload) for port in one.get("ports") or ()]
    return {one["name"]: one["containerPort"] for one in ports if "name" in one and one.get("protocol", "TCP") == "TCP"}


def _settings(service: Service, folder: str, manifests: list[Manifest]) -> dict[str, str | None]:
    found: dict[str, Any] = {}
    for values in config_maps(service, folder).values():
        found |= values
    for one in manifests:
        found |= (one.get("data") or {}) if one["kind"] == "ConfigMap" else {}
    for one in manifests:
        for container in containers(one):
            found |= {variable["name"]: variable.get("value") for variable in container.get("env") or ()}
    return found
