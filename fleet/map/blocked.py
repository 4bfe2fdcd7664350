"""Find calls that no network policy lets through, on the side of the caller or of the provider."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from fleet.check.findings import Finding, Level
from fleet.judges.network_policy import Pods, matches, may_receive, may_send
from fleet.map.facts import USES, Facts
from fleet.map.model import Edge, Map, MapFinding
from fleet.map.networks import Network
from fleet.processes.resource_limits import LimitExceeded, limit_resources

WHY = "A call that a network policy blocks ends with a timeout, and nothing in the logs of either service names the policy."
OVERLAYS = "deploy/overlays"
PAGE = "docs/how-to/call-another-service.md"


@dataclass(frozen=True)
class Target:
    """The pods that a caller means, and their port."""

    network: Network
    pods: tuple[Pods, ...]
    port: int


def findings(map_: Map) -> Iterator[MapFinding]:
    """Judge each call that specs/uses of the caller declares, in each overlay of the caller whose neighbour is known."""
    for caller in map_.services.values():
        found: list[MapFinding] = []
        try:
            # One limit for all calls of a caller, as for the comparison of its uses.
            with limit_resources(f"comparing the network policies of {caller.name} and its neighbours"):
                for one in _of_caller(map_, caller):
                    found.append(one)
        except LimitExceeded as error:
            remedy = f"make the overlays of {caller.name}, or of its neighbours, smaller"
            finding = Finding("map-call-blocked", OVERLAYS, str(error), remedy, Level.WARNING, why=WHY)
            found.append(MapFinding((caller.name,), finding))
        yield from found


def _of_caller(map_: Map, caller: Facts) -> Iterator[MapFinding]:
    for name in caller.uses:
        provider = map_.services.get(map_.service_of(name) or "")
        if provider is not None and provider is not caller:
            for network in map_.networks.get(caller.name, ()):
                yield from _of_call(map_, caller, network, name, provider)


def _of_call(map_: Map, caller: Facts, network: Network, name: str, provider: Facts) -> Iterator[MapFinding]:
    try:
        target = _target(network, name, provider, map_.networks.get(provider.name, []))
        if target is None or not network.workloads:
            return
        ways = list(_ways(network, target))
    except (AttributeError, KeyError, TypeError, ValueError):
        return  # no cluster would accept the manifest
    if not any(leaves and arrives for leaves, arrives in ways):
        where = f"{provider.name} at port {target.port} in {network.environment}"
        path, rule = f"{network.folder}/peers.yaml", f"as {PAGE} shows"
        what = f"{caller.name} uses the API (specs/uses/{name}.json)"
        edges = map_.call(caller.name, provider.name)
        if not any(leaves for leaves, _ in ways):
            reason = f"{what}, and none of its NetworkPolicies lets its pods reach {where}"
            yield _finding(caller, provider, path, reason, f"let them out in {path}, {rule}", edges)
        if not any(arrives for _, arrives in ways):
            reason = f"{what}, and no NetworkPolicy of {provider.name} lets its pods reach {where}"
            remedy = f"ask the team of {provider.name} to let {caller.name} in: in its {target.network.folder}/peers.yaml, {rule}"
            yield _finding(caller, provider, f"{USES}{name}.json", reason, remedy, edges)


def _finding(caller: Facts, provider: Facts, path: str, reason: str, remedy: str, edges: tuple[Edge]) -> MapFinding:
    # The caller has to act, even if it is the provider that blocks the call: the provider may not know of the call.
    return MapFinding((caller.name, provider.name), Finding("map-call-blocked", path, reason, remedy, why=WHY), edges)


def _ways(network: Network, target: Target) -> Iterator[tuple[bool, bool]]:
    """Yield for each workload of the caller and each of the provider whether a call leaves, and whether it arrives."""
    for source in network.workloads:
        for pods in target.pods:
            leaves = may_send(network.policies, source, pods, target.port)
            yield leaves, may_receive(target.network.policies, source, pods, target.port)


def _target(network: Network, name: str, provider: Facts, there: list[Network]) -> Target | None:
    """Find the pods behind the address that the caller's settings have. None if that is not certain."""
    is_set, host, namespace, number = address_of(network, {name, provider.name, *provider.apis}, name)
    if not is_set:
        same = (one for one in there if one.environment == network.environment)
        return _service(same, provider.name, 80)
    named = (one for one in there if namespace and one.namespace == namespace)
    return _service(named, host, number)


def address_of(network: Network, names: set[str], name: str) -> tuple[bool, str, str, int]:
    """Return whether the settings have an address of a neighbour, with its Service, namespace and port.

    Service and namespace are empty if the address leads out of the cluster or is not in the repository. Raises ValueError.
    """
    addresses = _addresses(network, names, name)
    if not addresses or addresses[0] is None:
        return bool(addresses), "", "", 0
    url = urlsplit(addresses[0])
    host, _, rest = (url.hostname or "").partition(".")
    namespace, _, suffix = rest.partition(".")
    if suffix and suffix.partition(".")[0] != "svc":
        return True, "", "", 0
    return True, host, namespace or network.namespace, url.port or (443 if url.scheme == "https" else 80)


def _addresses(network: Network, names: set[str], name: str) -> list[str | None]:
    """Return the values of the settings that are named for the provider, or else the value of NEIGHBOUR_URL."""
    words = "|".join(re.escape(one.upper().replace("-", "_")) for one in names)
    setting = re.compile(f"({words})(_SERVICE|_API|_BASE)*_URL")
    found = [value for key, value in network.settings.items() if setting.fullmatch(key.upper())]
    pattern = network.settings.get("NEIGHBOUR_URL")
    return found or ([pattern.replace("{name}", name)] if pattern else [])


def _service(networks: Iterable[Network], name: str, number: int) -> Target | None:
    for one in networks:
        spec = one.services.get(name) or {}
        port = next((each for each in spec.get("ports") or () if each["port"] == number), None)
        if port and spec.get("selector") and port.get("protocol", "TCP") == "TCP":
            return _behind(one, spec["selector"], port.get("targetPort", number))
    return None


def _behind(network: Network, selector: dict[str, str], port: int | str) -> Target | None:
    pods = tuple(one for one in network.workloads if matches({"matchLabels": selector}, one.labels))
    numbers = {one.ports.get(port) if isinstance(port, str) else port for one in pods}
    number = numbers.pop() if len(numbers) == 1 else None
    return None if number is None else Target(network, pods, number)
