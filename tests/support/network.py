"""The connections that NetworkPolicies allow, as Kubernetes reads them. Selectors other than equality are an error."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.manifests import Manifest, kinds

NAMESPACE = "kubernetes.io/metadata.name"
"""The label that every namespace has by default."""


@dataclass(frozen=True)
class Pod:
    """A pod. `ports` have names, which a policy may use in place of the number."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)


def lets_out(found: list[Manifest], pod: Pod, to: Pod, port: int) -> bool:
    """Return whether the policies let the pod open a connection to the other pod's port."""
    return _allows(found, pod, "Egress", "to", to, {port})


def lets_in(found: list[Manifest], pod: Pod, source: Pod, port: int) -> bool:
    """Return whether the policies let the other pod open a connection to this pod's port."""
    named = {name for name, number in pod.ports.items() if number == port}
    return _allows(found, pod, "Ingress", "from", source, {port, *named})


def _allows(found: list[Manifest], pod: Pod, way: str, peers: str, other: Pod, ports: set[Any]) -> bool:
    policies = list(_of(found, pod, way))
    if not policies:
        return True
    rules = [(one["metadata"]["namespace"], rule) for one in policies for rule in one["spec"].get(way.lower(), [])]
    return any(
        (peers not in rule or any(_is(peer, other, namespace) for peer in rule[peers]))
        and ("ports" not in rule or any(port["port"] in ports for port in rule["ports"]))
        for namespace, rule in rules
    )


def _of(found: list[Manifest], pod: Pod, way: str) -> Iterator[Manifest]:
    for one in kinds(found, "NetworkPolicy"):
        is_there = one["metadata"]["namespace"] == pod.namespace
        if is_there and way in one["spec"]["policyTypes"] and _matches(one["spec"]["podSelector"], pod.labels):
            yield one


def _is(peer: dict[str, Any], other: Pod, namespace: str) -> bool:
    if peer == {"ipBlock": {"cidr": "0.0.0.0/0"}}:
        return True  # a pod has such an address, too
    assert peer.keys() <= {"namespaceSelector", "podSelector"}, peer
    if "namespaceSelector" in peer:
        is_there = _matches(peer["namespaceSelector"], {NAMESPACE: other.namespace})
    else:
        is_there = other.namespace == namespace
    return is_there and _matches(peer.get("podSelector", {}), other.labels)


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()
