"""The generated renovate.json, checked by Renovate itself, which opens the pull request with the template's update.

Without a network: the forge and the template's repository are on this machine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fleet.check.drift import check_drift
from fleet.service.service import Service
from tests.fleet.services import Born, commit
from tests.fleet.update import forge
from tests.fleet.update.edits import kept, team_edits
from tests.support.commands import git
from tests.support.needs import RENOVATE
from tests.support.npm import with_node_24

# Platform-owned files with a pinned version.
PINNED = {
    "Dockerfile",
    "compose.yaml",
    ".github/workflows/ci.yaml",
    ".gitlab-ci.yml",
    ".python-version",
    "chassis/pyproject.toml",
}

WARNING = 40
"""The level of warnings in the log of Renovate."""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("renovate")]


def run(program: str, *arguments: str, cwd: Path, **settings: Any) -> tuple[int, list[dict[str, Any]]]:
    """Run a program of Renovate. Returns its exit status and its log."""
    folder, node = with_node_24(RENOVATE)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RENOVATE", "GITHUB"))}
    settings |= {"base_dir": str(cwd), "binary_source": "global"}
    env = inherited | {
        f"RENOVATE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }
    # Renovate runs the `copier` in PATH, as on a developer's machine.
    env |= {
        "PATH": f"{Path(sys.executable).parent}:{node.parent}:{env['PATH']}",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "json",
        "NODE_COMPILE_CACHE": str(folder / "compiled"),  # the runs after the first do not compile Renovate
    }
    script = folder / "node_modules/renovate/dist" / f"{program}.js"
    done = subprocess.run(
        [str(node), str(script), *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


# --- the pull request -------------------------------------------------------------------------------------------------


def recorded(service: Path, old: str, new: str) -> None:
    answers = service / ".copier-answers.yml"
    assert old in answers.read_text()
    answers.write_text(answers.read_text().replace(old, new))


def without_the_manager(service: Path) -> None:
    config = json.loads((service / "renovate.json").read_text())
    (service / "renovate.json").write_text(json.dumps(config | {"copier": {"enabled": False}}))


class Opened(NamedTuple):
    """The results of Renovate: the bare repositories by name, the pull requests, the log."""

    repositories: Path
    pulls: dict[str, list[dict[str, Any]]]
    log: list[dict[str, Any]]

    def branch(self, name: str, into: Path) -> Path:
        """Check out the pull request of that service."""
        (pull,) = self.pulls[name]
        git(into, "clone", "--quiet", "--branch", pull["head"], str(self.repositories / f"{name}.git"), name)
        return into / name


@pytest.fixture(scope="module")
def opened(history: Path, born: Born, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Run Renovate once over a service that its team has edited, and over services with a mistake."""
    folder = tmp_path_factory.mktemp("forge")
    address = f"git+file://{history}"
    wants_trust = folder / "wants-trust"
    git(folder, "clone", "--quiet", str(history), str(wants_trust))
    with (wants_trust / "copier.yml").open("a") as questions:
        questions.write("\n_tasks: [echo hello]\n")
    commit(wants_trust)
    git(wants_trust, "tag", "v1.4.0")

    services = {name: born(_src_path=address) for name in ("worked-on", "without-the-manager", "relative", "trusting")}
    team_edits(services["worked-on"])
    without_the_manager(services["without-the-manager"])
    recorded(services["relative"], address, "../slipway")
    recorded(services["trusting"], str(history), str(wants_trust))
    (folder / "git").mkdir()
    for name, service in services.items():
        if git(service, "status", "--porcelain"):
            commit(service)
        git(folder, "clone", "--quiet", "--bare", str(service), f"git/{name}.git")

    with forge.running(folder / "git") as here:
        status, log = run(
            "renovate",
            cwd=folder,
            platform="gitea",
            endpoint=here.url,
            token="any",
            repositories=here.repositories,
            # Otherwise Renovate would also look up the other dependencies of the service in registries.
            enabled_managers=["copier"],
        )
    assert status == 0, log
    return Opened(folder / "git", here.pulls, log)


def test_renovate_opens_a_pull_request_with_the_render_of_the_newest_version(opened: Opened, tmp_path: Path) -> None:
    (pull,) = opened.pulls["worked-on"]
    assert (pull["base"], pull["head"], pull["labels"]) == ("main", "renovate/service-template", [7])
    assert pull["title"] == "Update service template to v1.3.0"
    service = opened.branch("worked-on", tmp_path)
    kept(service)
    assert Service(service).answers.version == "v1.3.0"
    assert list(check_drift(Service(service))) == []


def test_renovate_is_not_asked_for_trust(opened: Opened, tmp_path: Path) -> None:
    updates = [line["command"] for line in opened.log if str(line.get("command", "")).startswith("copier update")]
    assert len(updates) == 2
    assert not any("--trust" in command for command in updates)
    # Renovate opens a pull request without the update for a template that asks for trust.
    (pull,) = opened.pulls["trusting"]
    assert "`v1.0.0` → `v1.4.0`" in pull["body"]
    assert Service(opened.branch("trusting", tmp_path)).answers.version == "v1.0.0"
    (failed,) = (line["artifactErrors"] for line in opened.log if "artifactErrors" in line)
    assert "unsafe" in failed[0]["stderr"]


def test_without_its_manager_or_the_templates_address_renovate_sees_no_update(opened: Opened) -> None:
    assert len(list(opened.repositories.iterdir())) == 4
    assert set(opened.pulls) == {"worked-on", "trusting"}


# --- updates that Renovate leaves out ---------------------------------------------------------------------------------


def test_renovate_leaves_the_platforms_pins_alone_and_not_the_teams(born: Born) -> None:
    service = born(ci="both")
    (service / ".github/workflows/ours.yaml").write_text(
        "on: push\njobs: {ours: {runs-on: ubuntu-24.04, steps: [{uses: actions/checkout@v7.0.0}]}}\n"
    )
    (service / "pyproject.toml").write_text(
        (service / "pyproject.toml").read_text().replace('["slipway-chassis"]', '["slipway-chassis", "pillow==12.0.0"]')
    )
    commit(service)
    # Renovate calls no host, because all hosts are switched off.
    hosts = [{"matchHost": "https://"}, {"matchHost": "api.github.com", "token": "any"}]
    closed = [host | {"enabled": False} for host in hosts]
    status, log = run("renovate", "--platform=local", "--dry-run=lookup", cwd=service, host_rules=closed)
    assert status == 0, log
    (found,) = (line["config"] for line in log if line["msg"] == "packageFiles with updates")
    files = [file for files in found.values() for file in files]
    pins = [(file["packageFile"], pin.get("skipReason")) for file in files for pin in file["deps"]]
    delivered = Service(service).expected.platform
    assert {path for path, skipped in pins if path in delivered and skipped == "disabled"} == PINNED
    looked_for = {path for path, skipped in pins if skipped is None}
    assert looked_for >= {"pyproject.toml", ".github/workflows/ours.yaml"}
    assert looked_for.isdisjoint(delivered)


def test_renovates_own_validator_accepts_the_generated_configuration_and_no_broken_variant(born: Born) -> None:
    service = born()
    config = (service / "renovate.json").read_text()
    (service / "broken.json").write_text(config.replace("before 6am on monday", "when it suits"))
    status, log = run("config-validator", "--strict", "--no-global", "renovate.json", "broken.json", cwd=service)
    assert status == 1, log
    told = [line["msg"] for line in log]
    assert "Validating renovate.json as repo config" in told
    assert "Config migration necessary" not in told
    assert [line["file"] for line in log if line["level"] >= WARNING and "file" in line] == ["broken.json"], told
