"""`fleet peers`: let a service out to the neighbours that specs/uses and the catalogue name."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fleet.errors import FleetError
from fleet.judges.kustomize import FILE, overlays
from fleet.judges.network_policy import Pods, may_send
from fleet.map.blocked import address_of
from fleet.map.networks import NAME_OF_NAMESPACE, Network, networks
from fleet.map.reader import read_service
from fleet.processes.resource_limits import limit_resources
from fleet.service.service import Service

NAME = "app.kubernetes.io/name"
PORT = 8000
"""The port of the pods of each service of the platform."""
PEERS = "peers.yaml"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def write_peers(root: Path) -> list[str]:
    """Add the missing policies to peers.yaml of each overlay, and return a line for each. Raises FleetError."""
    service = Service(root)
    with limit_resources("reading the overlays"):
        facts = read_service(service)
        names = dict.fromkeys([*facts.uses, *(one for one in facts.consumes if not one.endswith("-messages"))])
        found = list(networks(service))
    lines = [
        f"{folder} was left out: it cannot be read, or has policies of another kind than NetworkPolicy"
        for folder in overlays(service)
        if folder not in {network.folder for network in found}
    ]
    texts: dict[str, str] = {}
    for network in found:
        path = f"{network.folder}/{PEERS}"
        (kustomization,) = service.yaml(f"{network.folder}/{FILE}")
        if PEERS not in (kustomization.get("resources") or ()):
            raise FleetError(
                f"{network.folder}/{FILE} does not list {PEERS}: add it to resources, and run the command again"
            )
        taken = {_name(one) for one in service.yaml(path)}
        try:
            with limit_resources(f"judging the policies of {network.folder}"):
                missing = list(missing_policies(service.name, network, names))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise FleetError(f"{network.folder} has a NetworkPolicy that no cluster would accept: correct it") from None
        for neighbour, policy in missing:
            if _name(policy) in taken:
                raise FleetError(
                    f"{path} has a policy {_name(policy)} already, which does not let {service.name} reach {neighbour} in "
                    f"{_namespace(policy)}: extend or rename it. Nothing was written"
                )
            taken.add(_name(policy))
            texts[path] = f"{texts.get(path, '')}---\n{yaml.safe_dump(policy, sort_keys=False)}"
            lines.append(f"{path}: {service.name} may reach {neighbour} in {_namespace(policy)}")
    if "neighbours" in (service.answers.values.get("chassis_parts") or ()):
        lines += [line for network in found for line in _without_address(service.name, network, names)]
    for path, text in texts.items():
        with (service.root / path).open("rb+") as file:  # bytes keep the line ends of the team
            is_whole = file.read()[-1:] in (b"", b"\n")
            file.write((text if is_whole else f"\n{text}").encode())
    return lines


def _without_address(service: str, network: Network, names: dict[str, None]) -> Iterator[str]:
    """Yield a sentence for each neighbour that has no address in an overlay. The team owns overlays, so no update adds it."""
    namespace = network.namespace.replace(service, "{name}")
    for name in names:
        with suppress(ValueError):
            if not address_of(network, {name}, name)[0]:
                yield (
                    f"{network.folder} has no address of {name}, which is called at http://{name} then: add "
                    f"NEIGHBOUR_URL=http://{{name}}.{namespace} to the settings in {FILE}, for all neighbours"
                )


def missing_policies(service: str, network: Network, names: dict[str, None]) -> Iterator[tuple[str, dict]]:
    """Yield each neighbour that no policy of an overlay lets the service reach, with the policy that does."""
    places = set()
    for name in names:
        host, namespace = place = _place(service, network, name)
        if not LABEL.fullmatch(host) or not namespace or place in places:
            continue
        places.add(place)
        target = Pods(
            {NAME: host, "app.kubernetes.io/component": "http"},
            {"http": PORT},
            namespace,
            {NAME_OF_NAMESPACE: namespace},
        )
        if not any(may_send(network.policies, source, target, PORT) for source in network.workloads):
            yield name, _policy(service, host, namespace)


def _place(service: str, network: Network, name: str) -> tuple[str, str]:
    """Return the Service and the namespace of a neighbour; empty if its address leads out of the cluster or is not known."""
    try:
        is_set, host, namespace, _ = address_of(network, {name}, name)
    except ValueError:
        return "", ""
    if is_set:
        return host, namespace
    # Without an address, assume that the namespaces differ only in the name of the service.
    return name, network.namespace.replace(service, name)


def _policy(service: str, host: str, namespace: str) -> dict:
    peer = {
        "namespaceSelector": {"matchLabels": {NAME_OF_NAMESPACE: namespace}},
        "podSelector": {"matchLabels": {NAME: host}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{service}-to-{host}"},
        "spec": {
            "podSelector": {"matchLabels": {NAME: service}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [peer], "ports": [{"port": PORT}]}],
        },
    }


def _name(policy: Any) -> str:
    metadata = policy.get("metadata") if isinstance(policy, dict) else None
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _namespace(policy: dict) -> str:
    return policy["spec"]["egress"][0]["to"][0]["namespaceSelector"]["matchLabels"][NAME_OF_NAMESPACE]
