"""Hardening: an attacker finds no root, no open network and no secret, and nobody deploys an image by a tag that moves."""

import re
from collections.abc import Iterator

from fleet.conventions import Convention, Problem
from fleet.conventions.committed_secrets import HARMLESS
from fleet.conventions.overlays import LONG_RUNNING, OverlayConvention, name_of
from fleet.judges.kustomize import FILE, Manifest, containers, overlays, pod
from fleet.service.service import Service


class Restricted(OverlayConvention):
    """An attacker who breaks into a restricted container gains little."""

    id = "deploy-restricted"
    remedy = (
        "keep the base's securityContext: a user that is not root, a read-only root, no capabilities, RuntimeDefault"
    )

    def problems(self, manifests: list[Manifest], *, production: bool) -> Iterator[str]:
        for one in manifests:
            spec = pod(one)
            of_pod = spec.get("securityContext") or {}
            for name in ("hostNetwork", "hostPID", "hostIPC"):
                if spec.get(name):
                    yield f"{name_of(one)} has {name}"
            for volume in spec.get("volumes") or ():
                if "hostPath" in volume:
                    yield f"{name_of(one)}, volume {volume['name']}, mounts the node's own disk"
            for container in containers(one):
                own = container.get("securityContext") or {}
                allowed = of_pod | own
                rules = {
                    "may run as root": allowed.get("runAsNonRoot") is not True or allowed.get("runAsUser") == 0,
                    "has no seccomp profile": (allowed.get("seccompProfile") or {}).get("type")
                    not in ("RuntimeDefault", "Localhost"),
                    "may write to its root": own.get("readOnlyRootFilesystem") is not True,
                    "may gain privileges": own.get("allowPrivilegeEscalation") is not False or own.get("privileged"),
                    "listens on the node": any("hostPort" in port for port in container.get("ports") or ()),
                    "keeps capabilities": "ALL" not in ((own.get("capabilities") or {}).get("drop") or ())
                    or (own.get("capabilities") or {}).get("add"),
                }
                if broken := [what for what, is_broken in rules.items() if is_broken]:
                    yield f"{name_of(one)}, container {container['name']}, {', '.join(broken)}"


class Network(OverlayConvention):
    """Without policies that name peers, any pod of the cluster can reach the service, and the service any address."""

    id = "deploy-network-policy"
    remedy = "keep the base's NetworkPolicy, and name the other peers of the service in peers.yaml"

    def check(self, service: Service) -> Iterator[Problem]:
        self._names_callers = service.answers.values.get("auth") == "oidc"
        yield from super().check(service)

    def problems(self, manifests: list[Manifest], *, production: bool) -> Iterator[str]:
        policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]
        for one in manifests:
            if one["kind"] in LONG_RUNNING:
                labels = one["spec"]["template"]["metadata"].get("labels", {}).items()
                own = [each for each in policies if (each["podSelector"].get("matchLabels") or {}).items() <= labels]
                covered = {kind for each in own for kind in each.get("policyTypes", ["Ingress"])}
                if missing := sorted({"Ingress", "Egress"} - covered):
                    yield f"no NetworkPolicy limits {' and '.join(missing).lower()} of {name_of(one)}"
        for one in manifests:
            if one["kind"] == "NetworkPolicy":
                for way, peers in (("ingress", "from"), ("egress", "to")):
                    if any(_is_open(rule, peers) for rule in one["spec"].get(way) or ()):
                        yield f"{name_of(one)} allows {way} {peers} anybody"
                if self._names_callers and any({"podSelector": {}} in rule["from"] for rule in _ingress(one)):
                    yield f"{name_of(one)} allows ingress from every pod of its namespace, although the service has identity"


def _ingress(policy: Manifest) -> list[Manifest]:
    return [rule for rule in policy["spec"].get("ingress") or () if rule.get("from")]


def _is_open(rule: Manifest, peers: str) -> bool:
    """Return whether the rule names no peers, or allows all addresses or all namespaces at every port."""
    if not rule.get(peers):
        return True
    ports = rule.get("ports") or [{}]
    if not any("port" not in port or (port["port"], port.get("endPort")) == (1, 65535) for port in ports):
        return False
    return any(_is_anybody(peer) for peer in rule[peers])


def _is_anybody(peer: Manifest) -> bool:
    block = peer.get("ipBlock")
    if block:
        return block["cidr"].endswith("/0") and not block.get("except")
    return not peer.get("podSelector") and not peer.get("namespaceSelector") and peer.keys() != {"podSelector"}


class Images(OverlayConvention):
    """With a tag that moves, or without a tag, an untested image may be deployed, and a rollback may change nothing."""

    id = "deploy-image-pinned"
    remedy = "name a version or a digest in `images`"

    def problems(self, manifests: list[Manifest], *, production: bool) -> Iterator[str]:
        for one in manifests:
            for container in containers(one):
                image = container.get("image", "")
                tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
                if "@sha256:" not in image and tag in ("", "latest", "main", "master", "stable", "edge"):
                    yield f"{name_of(one)}, container {container['name']}, runs {image or 'no image'}"


class Secrets(OverlayConvention):
    """Everybody who ever cloned a repository knows the secrets in it."""

    id = "deploy-no-secrets"
    remedy = "let the cluster's secret store create the Secret, and refer to it by secretKeyRef"
    names = re.compile(r"(?i).*(password|passwd|secret|token|api_?key|private_?key).*")
    addresses = re.compile(r"(?i).*(database|broker)_url.*")

    def check(self, service: Service) -> Iterator[Problem]:
        yield from super().check(service)
        for folder in overlays(service):
            for document in service.yaml(f"{folder}/{FILE}"):
                if not isinstance(document, dict):
                    continue
                if document.get("secretGenerator"):
                    yield Problem(f"{folder}/{FILE}", "the overlay generates a Secret from values in the repository")
                for name in filter(self._is_secret, _literals(document)):
                    yield Problem(f"{folder}/{FILE}", f"the value of {name} is written out")

    def _is_secret(self, name: str) -> bool:
        return bool(self.addresses.fullmatch(name) or (self.names.fullmatch(name) and not HARMLESS.fullmatch(name)))

    def problems(self, manifests: list[Manifest], *, production: bool) -> Iterator[str]:
        for one in manifests:
            if one["kind"] == "Secret" and (one.get("data") or one.get("stringData")):
                yield f"{name_of(one)} is written out"
            for name in filter(self._is_secret, (one.get("data") or {}) if one["kind"] == "ConfigMap" else ()):
                yield f"{name_of(one)}: the value of {name} is written out"
            for container in containers(one):
                for variable in container.get("env") or ():
                    if variable.get("value") and self._is_secret(variable["name"]):
                        yield f"{name_of(one)}: the value of {variable['name']} is written out"


def _literals(kustomization: Manifest) -> Iterator[str]:
    """Yield the names of the literals that a kustomization puts into ConfigMaps."""
    for generator in kustomization.get("configMapGenerator") or ():
        for literal in (generator.get("literals") if isinstance(generator, dict) else None) or ():
            name, _, value = str(literal).partition("=")
            if value:
                yield name


class NonRootImage(Convention):
    """A restricted cluster refuses an image that runs as root, and elsewhere root makes every break-in worse."""

    id = "image-non-root"
    remedy = "end the Dockerfile's last stage with USER and a number above 0, as the template's does"

    def check(self, service: Service) -> Iterator[Problem]:
        lines = service.text("Dockerfile").splitlines()
        stages = [number for number, line in enumerate(lines) if re.match(r"(?i)\s*FROM\s", line)]
        users = [(number, line.split()[1]) for number, line in enumerate(lines) if re.match(r"(?i)\s*USER\s+\S", line)]
        last = [(number, user) for number, user in users if stages and number > stages[-1]]
        number, user = last[-1] if last else (0, "root, because the last stage has no USER")
        if not re.fullmatch(r"[1-9]\d*(:\d+)?", user):
            yield Problem("Dockerfile", f"the user of the image is {user}", number + 1 if last else 0)
