"""A machine that runs a pipeline's commands, with stand-ins that record their calls in place of missing programs.

The container engine with its registry, the cluster and the signer are stand-ins. kustomize and all else is real.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support import golang
from tests.support.commands import service_environment
from tests.support.manifests import KUSTOMIZE

DIGEST = "sha256:" + "a1" * 32

# The stand-in records its arguments and the manifests that it gets, and prints the answer in STAND_IN_ANSWERS.
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, shutil, sys
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
log = pathlib.Path(os.environ["STAND_IN_LOG"])
with log.open("a") as file:
    file.write(json.dumps([name, *arguments]) + "\\n")
if "--filename" in arguments:
    shutil.copy(arguments[arguments.index("--filename") + 1], log.with_name("applied.yaml"))
answers = json.loads(os.environ["STAND_IN_ANSWERS"])
status, says = next((given for words, given in answers.items() if words in " ".join([name, *arguments])), (0, ""))
print(says)
sys.exit(status)
"""


@cache
def _fetched_by_uv() -> dict[str, str]:
    """Return the environment variables with the folders of the user's uv."""
    return {
        name: subprocess.run(["uv", what, "dir"], capture_output=True, text=True, check=True).stdout.strip()
        for name, what in (("UV_CACHE_DIR", "cache"), ("UV_PYTHON_INSTALL_DIR", "python"))
    }


OF_OUR_FLEET = {"FLEET_TEMPLATE", "FLEET_TRUSTED_TEMPLATES", "FLEET_POLICY", "FLEET_TODAY"}
"""Variables that tests of `fleet` leave in this process for as long as it runs."""


@dataclass
class Machine:
    """A machine. `answers` maps the words of a command to its exit status and output. Other commands succeed silently."""

    folder: Path
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)

    def run(self, command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a runner does: in a shell that ends at the first failure, and without our variables for `fleet`."""
        env = service_environment(
            PATH=f"{self.folder / 'bin'}:{os.environ['PATH']}",
            STAND_IN_LOG=str(self.folder / "log"),
            STAND_IN_ANSWERS=json.dumps(self.answers),
            **environment,
        )
        # The machine's home is not the user's home, but the machine may use the cache that uv has for the user.
        env |= {"HOME": str(self.folder), **_fetched_by_uv()}
        env = {name: value for name, value in env.items() if name not in OF_OUR_FLEET or name in environment}
        shell = ["bash", "-e", "-c", command]
        return subprocess.run(shell, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)

    def calls(self) -> list[list[str]]:
        """Return the calls of the stand-ins in their order."""
        log = self.folder / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def applied(self) -> list[dict[str, Any]]:
        """Return the manifests that the cluster received last."""
        return list(yaml.safe_load_all((self.folder / "applied.yaml").read_text()))

    def images(self) -> list[str]:
        """Return the images of the pods in the applied manifests."""
        pods = [one["spec"]["template"]["spec"] for one in self.applied() if one["kind"] in ("Deployment", "Job")]
        return [container["image"] for pod in pods for container in pod["containers"]]


def machine(folder: Path) -> Machine:
    """Make a machine whose registries accept pushes, and on whose cluster migrations succeed."""
    (folder / "bin").mkdir()
    for name in ("docker", "kubectl", "cosign"):
        (folder / "bin" / name).write_text(STAND_IN)
        (folder / "bin" / name).chmod(0o755)
    (folder / "bin" / "kustomize").symlink_to(golang.built("kustomize", KUSTOMIZE))
    pushed = [f"{registry}/acme/billing@{DIGEST}" for registry in ("ghcr.io", "registry.gitlab.com")]
    return Machine(
        folder,
        {
            "docker run": (0, '{"bomFormat": "CycloneDX", "components": ["all"]}'),
            "docker inspect": (0, json.dumps([{"RepoDigests": pushed}], indent=4)),
            "get job/": (0, "SuccessCriteriaMet Complete"),
        },
    )
