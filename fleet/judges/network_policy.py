"""Evaluate NetworkPolicies as Kubernetes does: whether pods may send to other pods.

A repository shows neither the addresses of pods nor all labels of a namespace. Therefore a peer that may match counts as a
match, so that the answer "no" is certain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Pods:
    """The pods of one workload. `ports` are the numbers of their named ports; an empty namespace is not known."""

    labels: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=dict)
    namespace: str = ""
    # Labels of the namespace that are certain. A cluster may add others.
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def may_send(policies: Sequence[Node], source: Pods, target: Pods, port: int) -> bool:
    """Return whether the policies of the source let its pods send to a TCP port of the target."""
    rules = _rules(policies, "Egress", source)
    return rules is None or any(_allows(rule, rule.get("to"), source, target, target, port) for rule in rules)


def may_receive(policies: Sequence[Node], source: Pods, target: Pods, port: int) -> bool:
    """Return whether the policies of the target let its pods receive from the source at a TCP port."""
    rules = _rules(policies, "Ingress", target)
    return rules is None or any(_allows(rule, rule.get("from"), target, source, target, port) for rule in rules)


def _rules(policies: Sequence[Node], way: str, pods: Pods) -> list[Node] | None:
    """Return the rules for these pods: one rule that allows the traffic is enough. None if no policy limits the pods."""
    limiting = [one for one in policies if way in _ways(one) and matches(one.get("podSelector") or {}, pods.labels)]
    return [rule for one in limiting for rule in one.get(way.lower()) or ()] if limiting else None


def _ways(policy: Node) -> Sequence[str]:
    return policy.get("policyTypes") or (["Ingress", "Egress"] if policy.get("egress") else ["Ingress"])


def _allows(rule: Node, peers: Sequence[Node] | None, own: Pods, peer: Pods, target: Pods, port: int) -> bool:
    ports = rule.get("ports")
    return (not peers or any(_is_peer(one, own, peer) for one in peers)) and (
        not ports or any(_is_port(one, target, port) for one in ports)
    )


def _is_peer(one: Node, own: Pods, peer: Pods) -> bool:
    if one.get("ipBlock"):
        return True
    if one.get("namespaceSelector") is not None:
        is_namespace = matches(one["namespaceSelector"], peer.namespace_labels, are_all=False)
    else:
        is_namespace = not own.namespace or not peer.namespace or own.namespace == peer.namespace
    return is_namespace and matches(one.get("podSelector") or {}, peer.labels)


def _is_port(one: Node, target: Pods, port: int) -> bool:
    if one.get("protocol", "TCP") != "TCP":
        return False
    wanted = one.get("port")
    if isinstance(wanted, str):
        return target.ports.get(wanted) == port
    return wanted is None or wanted <= port <= one.get("endPort", wanted)


def matches(selector: Node, labels: Mapping[str, str], *, are_all: bool = True) -> bool:
    """Return whether a selector chooses these labels. Without `are_all` an unknown label may have any value, or be missing."""
    wanted = [
        {"key": key, "operator": "In", "values": [value]} for key, value in (selector.get("matchLabels") or {}).items()
    ]
    return all(
        _holds(one, labels)
        for one in (*wanted, *(selector.get("matchExpressions") or ()))
        if are_all or one["key"] in labels
    )


def _holds(expression: Node, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"{expression['operator']} is no operator of a selector")
