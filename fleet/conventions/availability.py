"""Availability: each workload gets requests only when ready, has its resources, and outlives the loss of a node."""

from collections.abc import Iterator
from typing import ClassVar

from fleet.conventions.overlays import LONG_RUNNING, OverlayConvention, name_of
from fleet.judges.kustomize import Manifest, containers, pod

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


class Probes(OverlayConvention):
    """Without probes a pod gets requests before it can answer them, and a pod that hangs is never restarted."""

    id = "deploy-probes"
    remedy = "keep the base's probes, and give each container of your own a startup, a liveness and a readiness probe"

    def problems(self, manifests: list[Manifest], *, production: bool) -> Iterator[str]:
        for one in manifests:
            # The first container only: the probes of a sidecar are for its author to choose.
            for container in pod(one).get("containers", [])[:1] if one["kind"] in LONG_RUNNING else ():
                if missing := [name for name in PROBES if not container.get(name)]:
                    yield f"{name_of(one)}, container {container['name']}, has no {', '.join(missing)}"


class Resources(OverlayConvention):
    """A container without declared resources is evicted first, and may take memory from its neighbours."""

    id = "deploy-resources"
    remedy = "give every container requests for CPU and memory, and a limit for memory"
    wanted = (("requests", "cpu"), ("requests", "memory"), ("limits", "memory"))

    def problems(self, manifests: list[Manifest], *, production: bool) -> Iterator[str]:
        for one in manifests:
            for container in containers(one):
                has = container.get("resources") or {}
                if missing := [f"{kind}.{name}" for kind, name in self.wanted if not (has.get(kind) or {}).get(name)]:
                    yield f"{name_of(one)}, container {container['name']}, has no resources {', '.join(missing)}"


class Replicas(OverlayConvention):
    """With one replica in production, every node that is drained is an outage."""

    id = "deploy-replicas"
    remedy = "run at least two: set `replicas`, or `minReplicas` of the autoscaler"
    # The field with the least number of replicas and its default, for the autoscalers of Kubernetes and KEDA.
    least: ClassVar = {"HorizontalPodAutoscaler": ("minReplicas", 1), "ScaledObject": ("minReplicaCount", 0)}

    def problems(self, manifests: list[Manifest], *, production: bool) -> Iterator[str]:
        if not production:
            return
        scaled = {
            one["spec"]["scaleTargetRef"]["name"]: one["spec"].get(*self.least[one["kind"]])
            for one in manifests
            if one["kind"] in self.least
        }
        for one in manifests:
            if one["kind"] in ("Deployment", "StatefulSet"):
                number = scaled.get(one["metadata"]["name"], one["spec"].get("replicas", 1))
                if number < 2:
                    yield f"{name_of(one)} may have {number} replicas"


class DisruptionBudget(OverlayConvention):
    """Without a budget, draining nodes may take all pods of a service away at once."""

    id = "deploy-disruption-budget"
    remedy = "keep the base's PodDisruptionBudget, and give one to every workload of your own"

    def problems(self, manifests: list[Manifest], *, production: bool) -> Iterator[str]:
        if not production:
            return
        budgets = [
            one["spec"].get("selector", {}).get("matchLabels", {}).items()
            for one in manifests
            if one["kind"] == "PodDisruptionBudget" and not _allows_all(one["spec"])
        ]
        for one in manifests:
            if one["kind"] in ("Deployment", "StatefulSet"):
                labels = one["spec"]["template"]["metadata"].get("labels", {}).items()
                if not any(chosen and chosen <= labels for chosen in budgets):
                    yield f"no PodDisruptionBudget covers {name_of(one)}"


def _allows_all(budget: Manifest) -> bool:
    return budget.get("maxUnavailable") == "100%" or budget.get("minAvailable") in (0, "0", "0%")
