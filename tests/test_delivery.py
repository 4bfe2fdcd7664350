"""What carries a service to production, judged by the tools that will consume it, and by our own conventions."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from chassis import health
from chassis.brokers import SCHEMES
from chassis.settings import Settings

from tests.answers import VARIANTS
from tests.conftest import ROOT, Render

# One worker, so that the tools are built once.
pytestmark = pytest.mark.xdist_group("delivery")

TOOLS = ROOT / "build" / "tools"
GO_TOOLS = {
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    "compose": "github.com/docker/compose/v5/cmd@v5.0.2",
    "kustomize": "sigs.k8s.io/kustomize/kustomize/v5@v5.8.2",
}
BACKSTAGE = "@backstage/catalog-model@1.10.1"

WORKFLOW = ".github/workflows/ci.yaml"
OVERLAYS = ("staging", "production")
ALL = [pytest.param(answers, id=name) for name, answers in VARIANTS.items()]

Tool = Callable[[str], str]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """`tool(name)`: the path of a validator: a wheel's binary, or a Go program that is built once."""

    def tool(name: str) -> str:
        if name not in GO_TOOLS:
            return str(Path(sys.executable).parent / name)
        version = GO_TOOLS[name].rpartition("@")[2]
        built = TOOLS / f"{name}-{version}"
        if not built.exists():
            if shutil.which("go") is None:
                pytest.skip(f"{name} is built with go, which is not here")
            TOOLS.mkdir(parents=True, exist_ok=True)
            with (TOOLS / "lock").open("w") as lock:  # another test process may be building the same
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not built.exists():
                    _go_install(GO_TOOLS[name], built)
        return str(built)

    return tool


def _go_install(module: str, built: Path) -> None:
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        env = {**os.environ, "GOBIN": scratch, "GOFLAGS": ""}
        subprocess.run(["go", "install", module], check=True, env=env, timeout=540)
        (program,) = Path(scratch).iterdir()
        program.rename(built)


@pytest.fixture
def service(render: Render, tmp_path: Path) -> Path:
    """A copy to break, with both pipelines in it."""
    return Path(shutil.copytree(render(**VARIANTS["default"]), tmp_path / "billing"))


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


# --- the real tools -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Validator:
    """A tool, the file it judges, and a change to that file which it has to refuse."""

    tool: str
    arguments: tuple[str, ...]
    file: str
    healthy: str
    broken: str

    def __call__(self, service: Path, tool: Tool) -> subprocess.CompletedProcess[str]:
        return run(tool(self.tool), *self.arguments, cwd=service)


def schema(name: str, file: str, healthy: str, broken: str, *options: str) -> Validator:
    return Validator("check-jsonschema", ("--builtin-schema", f"vendor.{name}", *options, file), file, healthy, broken)


def slow(validator: Validator) -> Any:
    return pytest.param(validator, id=validator.tool, marks=pytest.mark.slow)


VALIDATORS = [
    pytest.param(Validator("hadolint", ("Dockerfile",), "Dockerfile", "uv==0.13.9", "uv"), id="hadolint"),
    pytest.param(
        Validator(
            "zizmor",
            ("--offline", "--persona", "auditor", "--no-progress", "."),
            WORKFLOW,
            "persist-credentials: false",
            "persist-credentials: true",
        ),
        id="zizmor",
    ),
    slow(Validator("actionlint", (WORKFLOW,), WORKFLOW, "github.event_name", "github.event-name")),
    slow(Validator("compose", ("config", "--quiet"), "compose.yaml", "      migrate:", "      migration:")),
    pytest.param(schema("github-workflows", WORKFLOW, "timeout-minutes:", "timeout:"), id="GitHub's schema"),
    pytest.param(
        schema("gitlab-ci", ".gitlab-ci.yml", "\nbuild-image:", "\nimage:", "--data-transform", "gitlab-ci"),
        id="GitLab's schema",
    ),
    pytest.param(schema("compose-spec", "compose.yaml", "cap_drop:", "cap-drop:"), id="Compose's schema"),
    pytest.param(schema("renovate", "renovate.json", "before 6am on monday", 'monday", 6, "'), id="Renovate's schema"),
]


@pytest.mark.parametrize("validator", VALIDATORS)
def test_the_real_tool_finds_nothing(validator: Validator, service: Path, tool: Tool) -> None:
    found = validator(service, tool)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("validator", VALIDATORS)
def test_the_real_tool_would_find_something(validator: Validator, service: Path, tool: Tool) -> None:
    path = service / validator.file
    text = path.read_text()
    assert validator.healthy in text
    path.write_text(text.replace(validator.healthy, validator.broken))
    assert validator(service, tool).returncode != 0


def manifests(service: Path, overlay: str, tool: Tool) -> list[dict[str, Any]]:
    built = run(tool("kustomize"), "build", f"deploy/overlays/{overlay}", cwd=service)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "overlay"), [("short", "staging"), ("many-words", "production")])
def test_every_manifest_is_valid_for_kubernetes(render: Render, variant: str, overlay: str, tool: Tool) -> None:
    found = manifests(render(**VARIANTS[variant]), overlay, tool)
    for manifest in found:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    assert {manifest["kind"] for manifest in found} == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Job",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    }


@pytest.mark.slow
def test_a_misspelt_field_is_not_valid_for_kubernetes(service: Path, tool: Tool) -> None:
    path = service / "deploy/base/deployment.yaml"
    path.write_text(path.read_text().replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    (deployment,) = kinds(manifests(service, "staging", tool), "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


CATALOG_CHECK = """
const model = require('@backstage/catalog-model');
const policies = ['SchemaValidEntityPolicy', 'NoForeignRootFieldsEntityPolicy', 'FieldFormatEntityPolicy'];
const policy = model.EntityPolicies.allOf(policies.map(name => new model[name]()));
const kinds = { Component: model.componentEntityV1alpha1Validator, API: model.apiEntityV1alpha1Validator };
(async () => {
  for (const entity of JSON.parse(process.argv[1])) {
    await policy.enforce(entity);
    if (!await kinds[entity.kind].check(entity)) throw new Error('no such kind');
  }
})().catch(error => { console.error(error.message); process.exit(1); });
"""


@pytest.fixture(scope="session")
def catalog_check() -> Callable[[list[Any]], subprocess.CompletedProcess[str]]:
    """Backstage's own validator, from npm."""
    if shutil.which("npm") is None:
        pytest.skip("Backstage's validator needs npm, which is not here")
    folder = TOOLS / "backstage-{1}".format(*BACKSTAGE.rsplit("@", 1))
    if not (folder / "package-lock.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", BACKSTAGE]
        subprocess.run(command, cwd=folder, check=True, timeout=300)
    return lambda entities: run("node", "-e", CATALOG_CHECK, json.dumps(entities), cwd=folder)


@pytest.mark.slow
def test_backstage_takes_the_catalogue_entry_of_every_variant(render: Render, catalog_check: Any) -> None:
    entities = [
        entity for answers in VARIANTS.values() for entity in documents(render(**answers) / "catalog-info.yaml")
    ]
    components, apis = ([one for one in entities if one["kind"] == kind] for kind in ("Component", "API"))
    provided = [name for one in components for name in one["spec"]["providesApis"]]
    assert provided == [one["metadata"]["name"] for one in apis]
    assert {one["spec"]["type"] for one in apis} == {"openapi", "asyncapi"}
    for api in apis:
        assert api["spec"]["definition"] == {"$text": f"./specs/{api['spec']['type']}.json"}
        api["spec"]["definition"] = "what Backstage puts in the place of $text"
    checked = catalog_check(entities)
    assert checked.returncode == 0, checked.stderr
    components[0]["metadata"]["tags"] = ["No spaces allowed"]
    assert "tags.0" in catalog_check(components).stderr


# --- the image ------------------------------------------------------------------------------------------------------


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(`FROM`, `python:…`) and so on, continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(words[0], words[1].strip()) for line in text.splitlines() if len(words := line.split(maxsplit=1)) == 2]


def final_stage(service: Path) -> list[tuple[str, str]]:
    found = instructions(service / "Dockerfile")
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def test_the_image_runs_as_a_number_and_starts_without_a_shell(render: Render) -> None:
    stage = dict(final_stage(render(**VARIANTS["default"])))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage["USER"])
    assert json.loads(stage["ENTRYPOINT"]) == ["python", "-m", "billing"]
    assert json.loads(stage["CMD"]) == ["serve"]
    assert json.loads(stage["HEALTHCHECK"].partition(" CMD ")[2]) == ["python", "-m", "chassis.healthcheck"]


def test_pip_uv_and_the_dev_group_stay_out_of_the_final_stage(render: Render) -> None:
    service = render(**VARIANTS["default"])
    assert not any(re.search(r"\b(pip|uv|apt-get)\b", text) for name, text in final_stage(service) if name == "RUN")
    syncs = [text for name, text in instructions(service / "Dockerfile") if name == "RUN" and "uv sync" in text]
    assert len(syncs) == 2
    assert all("--frozen --no-dev" in sync for sync in syncs)
    assert "--no-editable" in syncs[-1]


def test_what_the_dockerfile_copies_is_what_enters_the_build(render: Render) -> None:
    service = render(**VARIANTS["default"])
    lines = (service / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = [text for name, text in instructions(service / "Dockerfile") if name == "COPY" and "--from" not in text]
    assert "*" in lines
    assert {source.split("/")[0] for text in copied for source in text.split()[:-1]} == allowed


def test_one_version_of_uv_is_named_everywhere(render: Render) -> None:
    service = render(**VARIANTS["default"])
    found = {
        "Dockerfile": re.findall(r"uv==([\d.]+)", (service / "Dockerfile").read_text()),
        "Makefile": re.findall(r"uv~=([\d.]+)", (service / "Makefile").read_text()),
        WORKFLOW: [
            step["with"]["version"]
            for job in documents(service / WORKFLOW)[0]["jobs"].values()
            for step in job["steps"]
            if "setup-uv" in step.get("uses", "")
        ],
    }
    assert all(found.values()), found
    assert len({version for versions in found.values() for version in versions}) == 1, found


# --- Compose --------------------------------------------------------------------------------------------------------


def test_compose_starts_in_the_order_of_dependency(render: Render) -> None:
    services = documents(render(**VARIANTS["default"]) / "compose.yaml")[0]["services"]
    conditions = {
        (name, other): dependency["condition"]
        for name, one in services.items()
        for other, dependency in one.get("depends_on", {}).items()
    }
    assert conditions == {
        ("migrate", "postgres"): "service_healthy",
        ("service", "postgres"): "service_healthy",
        ("service", "migrate"): "service_completed_successfully",
    }
    assert all("test" in services[name]["healthcheck"] for name in ("service", "postgres", "telemetry"))


def test_compose_holds_the_service_to_the_rules_of_production(render: Render) -> None:
    services = documents(render(**VARIANTS["default"]) / "compose.yaml")[0]["services"]
    for name in ("service", "migrate"):
        assert services[name]["read_only"] is True
        assert services[name]["tmpfs"] == ["/tmp"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
    settings = Settings(**{key.lower(): value for key, value in services["service"]["environment"].items()})
    assert int(services["service"]["stop_grace_period"].removesuffix("s")) > (
        settings.drain_seconds + settings.shutdown_timeout_seconds
    )


ON_BROKER = {"nats": VARIANTS["every-type"], "kafka": VARIANTS["many-words"], "rabbitmq": VARIANTS["both-rabbitmq"]}


@pytest.mark.parametrize("broker", ON_BROKER)
def test_compose_brings_the_chosen_broker_and_a_worker_that_reaches_it(render: Render, broker: str) -> None:
    (compose,) = documents(render(**ON_BROKER[broker]) / "compose.yaml")
    worker = compose["services"]["worker"]
    assert {name for name in ON_BROKER if name in compose["services"]} == {broker}
    assert worker["command"] == ["work"]
    assert worker["depends_on"].keys() == {"postgres", "migrate", broker}
    settings = Settings(**{key.lower(): value for key, value in worker["environment"].items()})
    assert settings.broker_url is not None
    url = urlsplit(settings.broker_url.get_secret_value())
    assert (url.hostname, SCHEMES[url.scheme]) == (broker, broker)
    assert int(worker["stop_grace_period"].removesuffix("s")) > settings.shutdown_timeout_seconds + 10
    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]
    # What it holds survives a new container, and nobody but this machine reaches it.
    (volume,) = compose["services"][broker]["volumes"]
    assert volume.partition(":")[0] in compose["volumes"]
    assert all(port.startswith("127.0.0.1:") for port in compose["services"][broker]["ports"])
    assert "test" in compose["services"][broker]["healthcheck"]


@pytest.mark.slow
@pytest.mark.parametrize("broker", ON_BROKER)
def test_compose_itself_takes_the_file_of_every_broker(render: Render, broker: str, tool: Tool) -> None:
    service = render(**ON_BROKER[broker])
    checked = run(tool("compose"), "config", "--quiet", cwd=service)
    assert checked.returncode == 0, checked.stderr
    checked = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose.yaml", cwd=service)
    assert checked.returncode == 0, checked.stdout


# --- pipelines ------------------------------------------------------------------------------------------------------


def pipeline_jobs(service: Path) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Each job of both forges, with its commands."""
    for name, job in documents(service / WORKFLOW)[0]["jobs"].items():
        yield f"GitHub: {name}", job, [step["run"] for step in job["steps"] if "run" in step]
    for name, job in documents(service / ".gitlab-ci.yml")[0].items():
        if isinstance(job, dict) and "script" in job:
            yield f"GitLab: {name}", job, job["script"]


def test_pipelines_only_call_make_and_both_forges_alike(render: Render) -> None:
    service = render(**VARIANTS["default"])
    targets = re.findall(r"^([a-z-]+):", (service / "Makefile").read_text(), re.MULTILINE)
    commands: dict[str, list[str]] = {"GitHub": [], "GitLab": []}
    for name, _, lines in pipeline_jobs(service):
        commands[name.partition(":")[0]] += lines
    assert commands["GitHub"] == commands["GitLab"] == ["make check", "make image"]
    assert {"check", "image"} <= set(targets)


def test_no_job_runs_for_ever(render: Render) -> None:
    service = render(**VARIANTS["default"])
    limits = {name: job.get("timeout-minutes") or job.get("timeout") for name, job, _ in pipeline_jobs(service)}
    assert len(limits) == 4
    assert all(limits.values()), limits


def test_a_lock_that_is_not_committed_fails_in_both_pipelines(render: Render) -> None:
    service = render(**VARIANTS["default"])
    assert documents(service / WORKFLOW)[0]["env"]["UV_LOCKED"] == "1"
    assert documents(service / ".gitlab-ci.yml")[0]["check"]["variables"]["UV_LOCKED"] == "1"


def test_a_job_may_only_what_it_needs(render: Render) -> None:
    workflow = documents(render(**VARIANTS["default"]) / WORKFLOW)[0]
    assert workflow["permissions"] == {}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "check": {"contents": "read"},
        "build-image": {"contents": "read"},
    }


def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it(render: Render) -> None:
    lines = re.findall(r"uses: (.*)", (render(**VARIANTS["default"]) / WORKFLOW).read_text())
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.slow
def test_every_image_is_pinned(render: Render, tool: Tool) -> None:
    service = render(**VARIANTS["default"])
    stages = {text.split(" AS ")[1] for name, text in instructions(service / "Dockerfile") if " AS " in text}
    images = {text.split()[0] for name, text in instructions(service / "Dockerfile") if name == "FROM"} - stages
    for variant in (VARIANTS["default"], *ON_BROKER.values()):
        compose = documents(render(**variant) / "compose.yaml")[0]["services"]
        images |= {one["image"] for one in compose.values() if not one["image"].endswith(":local")}
    for _, job, _ in pipeline_jobs(service):
        images |= {job["image"], *job.get("services", [])} if "image" in job else set()
    for overlay in OVERLAYS:
        for workload in kinds(manifests(service, overlay, tool), "Deployment", "Job"):
            images |= {container["image"] for container in pod(workload)["containers"]}
    assert len(images) >= 10
    assert [image for image in images if not re.search(r":\d+(\.\d+)+(-[a-z-]+)?$", image)] == []


# --- Kubernetes -----------------------------------------------------------------------------------------------------


def kinds(found: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [manifest for manifest in found if manifest["kind"] in names]


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    return workload["spec"]["template"]["spec"]


def part(found: list[dict[str, Any]], component: str) -> dict[str, Any]:
    """The workload whose pods are of this component."""
    labels = "app.kubernetes.io/component"
    (one,) = (each for each in kinds(found, "Deployment", "Job") if pod_labels(each)[labels] == component)
    return one


def pod_labels(workload: dict[str, Any]) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]


@pytest.fixture(scope="session", params=OVERLAYS)
def deployed(request: pytest.FixtureRequest, render: Render, tool: Tool) -> list[dict[str, Any]]:
    """A service with messages: HTTP pods, workers and the migration."""
    return manifests(render(**VARIANTS["many-words"]), request.param, tool)


@pytest.mark.slow
def test_without_messages_nothing_of_a_worker_is_deployed(render: Render, tool: Tool) -> None:
    found = manifests(render(**VARIANTS["default"]), "production", tool)
    assert [one["metadata"]["name"] for one in kinds(found, "Deployment", "PodDisruptionBudget", "NetworkPolicy")] == [
        "billing"
    ] * 3
    assert "broker" not in json.dumps(found).lower()


@pytest.mark.slow
def test_the_probes_are_the_ones_that_the_chassis_answers(deployed: list[dict[str, Any]]) -> None:
    for component in ("http", "worker"):
        (container,) = pod(part(deployed, component))["containers"]
        probes = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert [probe["path"] for probe in probes.values()] == ["/startupz", "/livez", "/readyz"]
        assert {probe["path"] for probe in probes.values()} == {route.path for route in health.router.routes}  # ty: ignore[unresolved-attribute]
        assert {probe["port"] for probe in probes.values()} == {"http"}
        assert container["ports"] == [{"name": "http", "containerPort": Settings.model_fields["http_port"].default}]


@pytest.mark.slow
def test_a_pod_has_time_to_drain_and_to_finish(deployed: list[dict[str, Any]]) -> None:
    (config,) = kinds(deployed, "ConfigMap")
    finishing = float(config["data"]["SHUTDOWN_TIMEOUT_SECONDS"])
    draining = float(config["data"]["DRAIN_SECONDS"])
    # After that the pool closes and each telemetry signal may take its export timeout once more.
    assert pod(part(deployed, "http"))["terminationGracePeriodSeconds"] >= draining + finishing + 10
    assert pod(part(deployed, "worker"))["terminationGracePeriodSeconds"] >= finishing + 10


@pytest.mark.slow
def test_every_pod_is_restricted(deployed: list[dict[str, Any]]) -> None:
    workloads = kinds(deployed, "Deployment", "Job")
    assert len(workloads) == 3
    for workload in workloads:
        spec = pod(workload)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert container["resources"].keys() == {"requests", "limits"}
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


@pytest.mark.slow
def test_every_selector_chooses_its_own_pods_and_no_others(deployed: list[dict[str, Any]]) -> None:
    pods = {name: pod_labels(part(deployed, name)).items() for name in ("http", "worker", "migrate")}

    def chosen(selector: dict[str, str]) -> set[str]:
        return {name for name, labels in pods.items() if selector.items() <= labels}

    (service,) = kinds(deployed, "Service")
    assert chosen(service["spec"]["selector"]) == {"http"}
    for component in ("http", "worker"):
        deployment = part(deployed, component)
        assert chosen(deployment["spec"]["selector"]["matchLabels"]) == {component}
        for spread in pod(deployment)["topologySpreadConstraints"]:
            assert chosen(spread["labelSelector"]["matchLabels"]) == {component}
    budgets = kinds(deployed, "PodDisruptionBudget")
    assert [chosen(one["spec"]["selector"]["matchLabels"]) for one in budgets] == [{"http"}, {"worker"}]
    (scaler,) = kinds(deployed, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == part(deployed, "http")["metadata"]["name"]
    assert "replicas" not in part(deployed, "http")["spec"]
    assert part(deployed, "worker")["spec"]["replicas"] > 1, "another one takes over the relay"


@pytest.mark.slow
@pytest.mark.parametrize(("broker", "port"), [("nats", 4222), ("kafka", 9092), ("rabbitmq", 5672)])
def test_only_the_worker_reaches_the_broker(render: Render, tool: Tool, broker: str, port: int) -> None:
    found = manifests(render(**ON_BROKER[broker]), "staging", tool)
    everybody, worker = kinds(found, "NetworkPolicy")
    assert everybody["spec"]["podSelector"]["matchLabels"].keys() == {"app.kubernetes.io/name"}
    assert worker["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "worker"
    reached = {one["port"] for rule in worker["spec"]["egress"] for one in rule["ports"]}
    assert port in reached
    assert reached.isdisjoint(one["port"] for rule in everybody["spec"]["egress"] for one in rule["ports"])


@pytest.mark.slow
def test_the_same_image_migrates_before_it_serves_and_needs_only_the_secret(deployed: list[dict[str, Any]]) -> None:
    job = part(deployed, "migrate")
    (serving,), (working,), (migrating,) = (
        pod(part(deployed, component))["containers"] for component in ("http", "worker", "migrate")
    )
    assert serving["image"] == working["image"] == migrating["image"]
    assert (serving["args"], working["args"], migrating["args"]) == (["serve"], ["work"], ["migrate"])
    assert job["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "PreSync"
    assert "envFrom" not in migrating
    assert "serviceAccountName" not in pod(job)
    assert serving["env"] == migrating["env"]
    assert [(one["name"], "secretKeyRef" in one["valueFrom"]) for one in working["env"]] == [
        ("DATABASE_URL", True),
        ("BROKER_URL", True),
    ]
    assert serving["env"] == working["env"][:1]


@pytest.mark.slow
def test_every_setting_that_is_deployed_is_one_that_the_service_reads(
    deployed: list[dict[str, Any]], render: Render
) -> None:
    (config,) = kinds(deployed, "ConfigMap")
    compose = documents(render(**VARIANTS["default"]) / "compose.yaml")[0]["services"]
    named = {*config["data"], *compose["service"]["environment"], *compose["migrate"]["environment"]}
    assert {name.lower() for name in named} <= Settings.model_fields.keys()
    Settings(database_url="postgresql://x", **{name.lower(): value for name, value in config["data"].items()})


# --- ownership, bots and pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", ALL)
def test_code_owners_is_the_team_in_a_form_that_both_forges_read(render: Render, answers: dict[str, Any]) -> None:
    lines = (render(**answers) / "CODEOWNERS").read_text().splitlines()
    (rule,) = (line for line in lines if line and not line.startswith("#"))
    team = answers.get("owner", f"{answers.get('domain', answers['service_name'])}-team").removeprefix("@")
    assert rule == f"* @{team}"


def test_renovate_leaves_alone_what_the_template_delivers(render: Render) -> None:
    service = render(**VARIANTS["default"])
    rules = json.loads((service / "renovate.json").read_text())["packageRules"]
    (frozen,) = (rule["matchFileNames"] for rule in rules if rule.get("enabled") is False)
    assert all(list(service.glob(pattern)) for pattern in frozen), "a pattern that fits no file"
    pinned = {"Dockerfile", "compose.yaml", ".gitlab-ci.yml", WORKFLOW, "chassis/**"}
    assert pinned <= set(frozen)
    assert not any(pattern.startswith("deploy/overlays") or pattern == "pyproject.toml" for pattern in frozen)


def test_the_runbook_lists_every_setting_with_its_default(render: Render) -> None:
    text = (render(**VARIANTS["default"]) / "docs/runbook.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", text, re.MULTILINE))
    assert {name.lower() for name in rows} == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        shown = rows[name.upper()]
        if field.is_required():
            assert "required" in shown
        elif field.default is None:
            assert shown.startswith("none")
        else:
            (first, *_) = re.findall(r"`(.*?)`", shown)
            assert json.dumps(field.default).strip('"') == first, name


def test_the_runbook_explains_every_503_that_the_chassis_gives(render: Render) -> None:
    text = (render(**VARIANTS["default"]) / "docs/runbook.md").read_text()
    section = text.partition("## Answers of 503")[2].partition("\n## ")[0]
    source = "".join(path.read_text() for path in (ROOT / "template/chassis/src/chassis").glob("*.py"))
    given = set(re.findall(r'unavailable\([^)]*code="(\w+)"', source)) - {"unavailable"}
    assert len(given) >= 3
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == given


@pytest.mark.parametrize("answers", ALL)
def test_every_link_in_the_pages_leads_somewhere(render: Render, answers: dict[str, Any]) -> None:
    docs = render(**answers) / "docs"
    links = 0
    for page in docs.rglob("*.md"):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            links += 1
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.is_file(), f"{page}: {target}"
            headings = re.findall(r"^#+ (.*)", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, f"{page}: {target}"
    assert links


@pytest.mark.parametrize("answers", ALL)
def test_the_first_decision_records_the_answers_and_the_verdict(render: Render, answers: dict[str, Any]) -> None:
    page = (render(**answers) / "docs/decisions/0001-a-service-of-its-own.md").read_text()
    given = [answers.get(name, "unknown") for name in ("limited_by_monolith", "separate_team", "ready_for_consistency")]
    assert re.findall(r"\? \| (.*) \|$", page, re.MULTILINE) == [
        {"yes": "yes", "no": "no", "unknown": "not sure yet"}[answer] for answer in given
    ]
    assert ("Two answers at least are yes" in page) == (given.count("yes") > 1)
    assert ("The answers do not decide it" in page) == (given.count("yes") < 2)
