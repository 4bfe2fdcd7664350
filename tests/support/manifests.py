"""The manifests of an overlay, built by the real kustomize, and the parts of them that tests check."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support import golang
from tests.support.needs import KUSTOMIZE

OVERLAYS = ("staging", "production")

Manifest = dict[str, Any]


def built(service: Path, overlay: str) -> str:
    """Build all manifests of an overlay, as YAML."""
    command = [golang.built("kustomize", KUSTOMIZE), "build", f"deploy/overlays/{overlay}"]
    done = subprocess.run(command, cwd=service, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifests(service: Path, overlay: str) -> list[Manifest]:
    return list(yaml.safe_load_all(built(service, overlay)))


def switch_on(service: Path, overlay: str, *components: str) -> None:
    """Switch components on as the team does: by removing the # of a line of the overlay."""
    path = service / "deploy/overlays" / overlay / "kustomization.yaml"
    for component in components:
        text, changed = re.subn(rf"^  # (- \.\./\.\./components/{component}\b)", r"  \1", path.read_text(), flags=re.M)
        assert changed == 1, component
        path.write_text(text)


def kinds(found: list[Manifest], *names: str) -> list[Manifest]:
    return [manifest for manifest in found if manifest["kind"] in names]


def pod(workload: Manifest) -> dict[str, Any]:
    return workload["spec"]["template"]["spec"]


def part(found: list[Manifest], component: str) -> Manifest:
    """Find the workload whose pods have this component."""
    labels = "app.kubernetes.io/component"
    (one,) = (each for each in kinds(found, "Deployment", "Job") if pod_labels(each)[labels] == component)
    return one


def pod_labels(workload: Manifest) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]
