"""`fleet map` names each known call that no network policy lets through, and no call that a policy may let through."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.errors import FleetError
from fleet.judges.network_policy import Pods
from fleet.map.blocked import findings
from fleet.map.facts import Facts
from fleet.map.model import Map
from fleet.map.networks import NAME_OF_NAMESPACE, Network
from fleet.map.peers import missing_policies, write_peers
from fleet.map.reader import read_folders
from tests.fleet.services import commit
from tests.support.commands import git
from tests.support.paths import ROOT
from tests.support.services import Render

Node = dict[str, Any]
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
PAGE = ROOT / "docs/how-to/call-another-service.md"


def policies_of_the_page() -> list[Node]:
    """The policies that the page shows: of the caller billing, and of the provider customers."""
    blocks = re.findall(r"```yaml\n(.+?)```", PAGE.read_text(), re.DOTALL)
    return [yaml.safe_load(one.partition("---\n")[2]) for one in blocks if "kind: NetworkPolicy" in one]


def base(name: str) -> Node:
    """The policy of the platform's base: a pod may resolve names, and nothing else."""
    dns = {"to": [{"namespaceSelector": {"matchLabels": {NAME_OF_NAMESPACE: "kube-system"}}}], "ports": [{"port": 53}]}
    return {
        "podSelector": {"matchLabels": {NAME: name}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [dns],
    }


def network(name: str, policy: Node, environment: str = "production", **settings: str | None) -> Network:
    namespace = f"{name}-{environment}"
    labels = {NAME: name, COMPONENT: "http"}
    pods = Pods(labels, {"http": 8000}, namespace, {NAME_OF_NAMESPACE: namespace})
    served = {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    policies = (base(name), copy.deepcopy(policy["spec"]))
    return Network(f"deploy/overlays/{environment}", namespace, (pods,), policies, {name: served}, settings)


def overlays() -> dict[str, Network]:
    """Both sides as the page shows them."""
    caller, provider = policies_of_the_page()
    return {
        "billing": network("billing", caller, CUSTOMERS_URL="http://customers.customers-production"),
        "customers": network("customers", provider),
    }


def found(networks: dict[str, Network]) -> list[tuple[tuple[str, ...], str, str]]:
    map_ = Map([Facts("billing", uses={"customers": {}}), Facts("customers")])
    map_.networks = {name: [one] for name, one in networks.items()}
    reported = list(findings(map_))
    assert all(one.acting == ("billing",) for one in reported)
    return [(one.services, one.finding.path, one.finding.reason) for one in reported]


def changed(one: Network, **fields: Any) -> Network:
    return Network(**{**vars(one), **fields})


def edited(name: str, edit: Callable[[Node], object]) -> dict[str, Network]:
    """Both sides, after an edit of one side's policy for the call."""
    both = overlays()
    policy = copy.deepcopy(both[name].policies[1])
    edit(policy)
    both[name] = changed(both[name], policies=(both[name].policies[0], policy))
    return both


def rule(policy: Node) -> Node:
    return (policy.get("egress") or policy.get("ingress"))[0]


def peer(policy: Node) -> Node:
    return (rule(policy).get("to") or rule(policy)["from"])[0]


def without(name: str) -> dict[str, Network]:
    both = overlays()
    return both | {name: changed(both[name], policies=both[name].policies[:1])}


def expression(key: str, operator: str, *values: str) -> Node:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


# Edits of a policy of either side, which then lets nothing through.
EDITS_THAT_BLOCK: dict[str, Callable[[Node], object]] = {
    "another port": lambda it: rule(it).update(ports=[{"port": 80}]),
    "a range of other ports": lambda it: rule(it).update(ports=[{"port": 8001, "endPort": 9000}]),
    "another name of a port": lambda it: rule(it).update(ports=[{"port": "metrics"}]),
    "another protocol": lambda it: rule(it).update(ports=[{"port": 8000, "protocol": "UDP"}]),
    "another namespace": lambda it: peer(it)["namespaceSelector"].update(matchLabels={NAME_OF_NAMESPACE: "shop"}),
    "any namespace except this one": lambda it: peer(it).update(
        namespaceSelector=expression(NAME_OF_NAMESPACE, "NotIn", "billing-production", "customers-production")
    ),
    "other pods": lambda it: peer(it)["podSelector"].update(matchLabels={NAME: "shop"}),
    "pods without a name": lambda it: peer(it).update(podSelector=expression(NAME, "DoesNotExist")),
    "pods with a label that they lack": lambda it: peer(it).update(podSelector=expression("tier", "Exists")),
    "pods of the own namespace": lambda it: peer(it).pop("namespaceSelector"),
    "a policy for other pods": lambda it: it["podSelector"]["matchLabels"].update({COMPONENT: "worker"}),
    "a policy for the other way": lambda it: it.update(
        policyTypes=["Ingress"] if it["policyTypes"] == ["Egress"] else ["Egress"]
    ),
    "no rule": lambda it: [it.pop(way, None) for way in ("egress", "ingress")],
}

# Edits that still let the call through, or that may do so.
HARMLESS_EDITS: dict[str, Callable[[Node], object]] = {
    "nothing": lambda _: None,
    "a rule for everything": lambda it: rule(it).clear(),
    "all ports": lambda it: rule(it).pop("ports"),
    "a range of ports": lambda it: rule(it).update(ports=[{"port": 7000, "endPort": 8000}]),
    "the port by its name": lambda it: rule(it).update(ports=[{"port": "http"}]),
    "one of two ports": lambda it: rule(it).update(ports=[{"port": 1}, {"port": 8000, "protocol": "TCP"}]),
    "all namespaces": lambda it: peer(it).update(namespaceSelector={}),
    "all pods of the namespace": lambda it: peer(it).pop("podSelector"),
    "a label of the namespace that only the cluster knows": lambda it: peer(it).update(
        namespaceSelector={"matchLabels": {"environment": "production"}}
    ),
    "an expression about a label that only the cluster knows": lambda it: peer(it).update(
        namespaceSelector=expression("environment", "NotIn", "staging")
    ),
    "some namespaces": lambda it: peer(it).update(
        namespaceSelector=expression(NAME_OF_NAMESPACE, "In", "billing-production", "customers-production")
    ),
    "pods with a component": lambda it: peer(it).update(podSelector=expression(COMPONENT, "Exists")),
    "pods of no other component": lambda it: peer(it).update(podSelector=expression(COMPONENT, "NotIn", "worker")),
    "a range of addresses": lambda it: [
        rule(it).update({way: [{"ipBlock": {"cidr": "10.0.0.0/8"}}]})
        for way in ("to", "from")
        if rule(it).pop(way, None)
    ],
    "a policy for all pods": lambda it: it.update(podSelector={}),
    "a second peer": lambda it: (rule(it).get("to") or rule(it)["from"]).insert(0, {"podSelector": {}}),
}


@pytest.mark.parametrize("edit", EDITS_THAT_BLOCK)
@pytest.mark.parametrize("name", ["billing", "customers"])
def test_a_policy_that_lets_nothing_through_blocks_the_call(name: str, edit: str) -> None:
    [(services, path, reason)] = found(edited(name, EDITS_THAT_BLOCK[edit]))
    assert services == ("billing", "customers")
    assert "specs/uses/customers.json" in reason
    assert "customers at port 8000 in production" in reason
    assert path == {"billing": "deploy/overlays/production/peers.yaml", "customers": "specs/uses/customers.json"}[name]


@pytest.mark.parametrize("edit", HARMLESS_EDITS)
@pytest.mark.parametrize("name", ["billing", "customers"])
def test_a_policy_that_may_let_the_call_through_is_not_reported(name: str, edit: str) -> None:
    assert found(edited(name, HARMLESS_EDITS[edit])) == []


def test_both_sides_without_a_policy_for_the_call_are_two_findings_of_the_caller() -> None:
    nobody = {name: without(name)[name] for name in ("billing", "customers")}
    assert [(services[0], path) for services, path, _ in found(nobody)] == [
        ("billing", "deploy/overlays/production/peers.yaml"),
        ("billing", "specs/uses/customers.json"),
    ]


def test_one_setting_may_have_the_addresses_of_all_neighbours() -> None:
    both = without("billing")
    for pattern, number in (("http://{name}.{name}-production", 1), ("http://{name}.{name}-staging", 0)):
        both["billing"] = changed(both["billing"], settings={"NEIGHBOUR_URL": pattern})
        assert len(found(both)) == number


@pytest.mark.parametrize("address", ["http://customers", "http://customers.customers-production.svc.cluster.local:80"])
def test_every_way_to_write_an_address_of_the_cluster_is_known(address: str) -> None:
    both = without("billing")
    namespace = "customers-production" if address == "http://customers" else "billing-production"
    both["billing"] = changed(both["billing"], settings={"CUSTOMERS_API_URL": address}, namespace=namespace)
    assert len(found(both)) == 1


UNKNOWN_ADDRESSES = {
    "a gateway": "https://api.example.com/customers",
    "another namespace": "http://customers.elsewhere",
    "another service": "http://gateway.customers-production",
    "another port": "http://customers.customers-production:9000",
    "a text that is no address": "http://[",
    "a Secret": None,
}


@pytest.mark.parametrize("address", UNKNOWN_ADDRESSES)
def test_a_call_to_an_address_that_is_not_certain_is_not_reported(address: str) -> None:
    both = without("billing")
    both["billing"] = changed(both["billing"], settings={"CUSTOMERS_URL": UNKNOWN_ADDRESSES[address]})
    assert found(both) == []


def test_without_an_address_the_neighbour_of_the_same_environment_is_meant() -> None:
    both = without("billing")
    both["billing"] = changed(both["billing"], settings={})
    assert len(found(both)) == 1
    both["customers"] = changed(both["customers"], folder="deploy/overlays/staging")
    assert found(both) == []


def test_one_workload_that_reaches_the_neighbour_is_enough() -> None:
    def choose_the_worker(policy: Node) -> None:
        policy["podSelector"]["matchLabels"][COMPONENT] = "worker"

    both = edited("billing", choose_the_worker)
    [http] = both["billing"].workloads
    worker = Pods({**http.labels, COMPONENT: "worker"}, {}, http.namespace, http.namespace_labels)
    assert len(found(both)) == 1
    assert found(both | {"billing": changed(both["billing"], workloads=(http, worker))}) == []


def test_pods_that_no_policy_limits_reach_each_other() -> None:
    assert found({name: changed(one, policies=()) for name, one in overlays().items()}) == []


@pytest.mark.parametrize("broken", [{"podSelector": 1}, {"podSelector": {}, "egress": 3}, {"egress": [{"to": [3]}]}])
def test_a_policy_that_no_cluster_would_accept_is_not_judged(broken: Node) -> None:
    both = without("billing")
    both["billing"] = changed(both["billing"], policies=(both["billing"].policies[0], broken))
    found(both)


def write(folder: Path, path: str, old: str, new: str) -> None:
    file = folder / path
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_policies_without_number_do_not_keep_the_map_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.2")
    both = without("billing")
    many = {name: getattr(both["billing"], name) * 1000 for name in ("policies", "workloads")}
    ((services, path, reason),) = found(both | {"billing": changed(both["billing"], **many)})
    assert (services, path) == (("billing",), "deploy/overlays")
    assert reason.startswith("comparing the network policies of billing and its neighbours takes more than 0.2 seconds")


@pytest.mark.slow
def test_two_generated_services_are_judged_by_the_policies_that_the_page_shows(render: Render, tmp_path: Path) -> None:
    folders = {}
    for name, auth in (("billing", "oidc"), ("customers", "none")):
        folders[name] = tmp_path / name
        render(service_name=name, auth=auth, messaging_style="events", broker="nats").rename(folders[name])
        with (folders[name] / ".copier-answers.yml").open("a") as answers:
            answers.write("_commit: v1.0.0\n")
        git(folders[name], "init", "--quiet")
        git(
            folders[name],
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.com",
            "commit",
            "--quiet",
            "--allow-empty",
            "-m",
            "Begin",
        )
    (folders["billing"] / "specs/uses").mkdir(parents=True)
    (folders["billing"] / "specs/uses/customers.json").write_text('{"openapi": "3.1.0", "info": {}, "paths": {}}')

    def blocked() -> list[tuple[str, str]]:
        return [
            (one.finding.path, one.finding.reason.rpartition(" in ")[2])
            for one in findings(read_folders(folders.values(), jobs=1))
        ]

    peers = "deploy/overlays/{}/peers.yaml"
    assert blocked() == [
        (path, environment)
        for environment in ("production", "staging")
        for path in (peers.format(environment), "specs/uses/customers.json")
    ]
    first = (folders["billing"] / peers.format("staging")).read_text()
    assert write_peers(folders["billing"]) == [
        f"{peers.format(environment)}: billing may reach customers in customers-{environment}"
        for environment in ("production", "staging")
    ]
    assert blocked() == [("specs/uses/customers.json", environment) for environment in ("production", "staging")]
    assert write_peers(folders["billing"]) == []
    added = yaml.safe_load((folders["billing"] / peers.format("production")).read_text().rpartition("---\n")[2])
    assert added == policies_of_the_page()[0]
    for environment in ("production", "staging"):
        (folders["billing"] / peers.format(environment)).write_text(first.replace("staging", environment))
    for name, policy in zip(("billing", "customers"), policies_of_the_page(), strict=True):
        for environment in ("production", "staging"):
            with (folders[name] / peers.format(environment)).open("a") as file:
                file.write("---\n" + yaml.safe_dump(policy).replace("-production", f"-{environment}"))
    assert blocked() == []
    write(folders["customers"], peers.format("staging"), "billing-staging", "billing-production")
    assert blocked() == [("specs/uses/customers.json", "staging")]


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        ({}, [("customers", "customers-production")]),
        ({"CUSTOMERS_URL": "http://customers.shop"}, [("customers", "shop")]),
        ({"CUSTOMERS_URL": "https://api.example.com"}, []),
        ({"CUSTOMERS_URL": None}, []),
        ({"CUSTOMERS_URL": "http://customers:x"}, []),
        ({"CUSTOMERS_URL": "http://Custo_mers.shop"}, []),
    ],
)
def test_fleet_peers_lets_a_service_out_to_addresses_of_the_cluster(
    settings: dict[str, str | None], written: list[tuple[str, str]]
) -> None:
    billing = changed(without("billing")["billing"], settings=settings)
    policies = [policy for _, policy in missing_policies("billing", billing, {"customers": None, "-- no name": None})]
    chosen = [peer(one["spec"]) for one in policies]
    assert [
        (one["podSelector"]["matchLabels"][NAME], one["namespaceSelector"]["matchLabels"][NAME_OF_NAMESPACE])
        for one in chosen
    ] == written


def test_fleet_peers_adds_nothing_that_a_policy_of_the_team_allows() -> None:
    assert list(missing_policies("billing", overlays()["billing"], {"customers": None})) == []


def test_two_names_of_one_address_have_one_policy() -> None:
    billing = changed(without("billing")["billing"], settings={"CUSTOMERS_API_URL": "http://customers.shop"})
    names = {"customers": None, "customers-api": None}
    assert [name for name, _ in missing_policies("billing", billing, names)] == ["customers"]


OVERLAY = {
    "kustomization.yaml": "namespace: billing-production\nresources: [workload.yaml, peers.yaml]\n",
    "workload.yaml": yaml.safe_dump(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "billing"},
            "spec": {"template": {"metadata": {"labels": {NAME: "billing"}}, "spec": {"containers": []}}},
        }
    ),
    "peers.yaml": yaml.safe_dump(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "billing-to-orders"},
            "spec": base("billing"),
        }
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service that uses customers, with one overlay, which lets it reach nobody."""
    files = {f"deploy/overlays/production/{name}": text for name, text in OVERLAY.items()}
    files[".copier-answers.yml"] = "_src_path: gh:acme/slipway\n_commit: v1.0.0\nservice_name: billing\n"
    files["specs/uses/customers.json"] = '{"openapi": "3.1.0", "info": {}, "paths": {}}'
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def test_fleet_peers_keeps_every_byte_of_the_team(folder: Path) -> None:
    file = folder / "deploy/overlays/production/peers.yaml"
    before = b"# ours\r\n" + file.read_bytes().replace(b"\n", b"\r\n").rstrip()
    file.write_bytes(before)
    assert len(write_peers(folder)) == 1
    assert file.read_bytes().startswith(before + b"\n---\n")
    assert [one["metadata"]["name"] for one in yaml.safe_load_all(file.read_text())][1:] == ["billing-to-customers"]
    assert write_peers(folder) == []


def test_fleet_peers_names_an_overlay_without_the_address_of_a_neighbour(folder: Path) -> None:
    answers, overlay = folder / ".copier-answers.yml", folder / "deploy/overlays/production/kustomization.yaml"
    write_peers(folder)
    answers.write_text(f"{answers.read_text()}chassis_parts: [neighbours]\n")
    (line,) = write_peers(folder)
    assert line == (
        "deploy/overlays/production has no address of customers, which is called at http://customers then: add "
        "NEIGHBOUR_URL=http://{name}.{name}-production to the settings in kustomization.yaml, for all neighbours"
    )
    setting = "configMapGenerator: [{name: billing, literals: ['NEIGHBOUR_URL=http://{name}.{name}-production']}]\n"
    overlay.write_text(f"{overlay.read_text()}{setting}")
    assert write_peers(folder) == []


def test_fleet_peers_refuses_to_write_a_second_policy_of_one_name(folder: Path) -> None:
    file = folder / "deploy/overlays/production/peers.yaml"
    file.write_text(before := file.read_text().replace("billing-to-orders", "billing-to-customers"))
    with pytest.raises(FleetError, match="has a policy billing-to-customers already, which does not let billing reach"):
        write_peers(folder)
    assert file.read_text() == before


def test_fleet_peers_names_an_overlay_that_stays_without_a_policy(folder: Path) -> None:
    (folder / "deploy/overlays/production/peers.yaml").write_text("kind: CiliumNetworkPolicy\n")
    (line,) = write_peers(folder)
    assert line.startswith("deploy/overlays/production was left out: it cannot be read")


def test_fleet_peers_refuses_a_policy_that_no_cluster_would_accept(folder: Path) -> None:
    file = folder / "deploy/overlays/production/peers.yaml"
    file.write_text(before := file.read_text().replace("egress:", "egress: [3]\n  ingress:"))
    with pytest.raises(FleetError, match="deploy/overlays/production has a NetworkPolicy that no cluster would accept"):
        write_peers(folder)
    assert file.read_text() == before
