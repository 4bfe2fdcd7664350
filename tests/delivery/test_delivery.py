"""The files that carry a service to production, checked by the tools that consume them, and by our conventions."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from chassis.brokers import SCHEMES
from chassis.settings import Settings
from codeowners import CodeOwners

from fleet.template.ownership import Owner, Ownership
from tests.support import compose as docker_compose
from tests.support import golang, npm
from tests.support.answers import EACH, VARIANTS
from tests.support.manifests import OVERLAYS, kinds, manifests, pod
from tests.support.needs import ACTIONLINT, BACKSTAGE
from tests.support.paths import ROOT
from tests.support.pipelines import Event, GitLab
from tests.support.services import Render

# These tests run in one worker, so that the tools are built once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("delivery")]


WORKFLOW = ".github/workflows/ci.yaml"

Tool = Callable[[str], list[str]]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """`tool(name)`: the command of a validator: a wheel's binary, Compose, or a Go program that is built once."""

    def tool(name: str) -> list[str]:
        if name == "compose":
            return docker_compose.command()
        return [str(golang.built(name, ACTIONLINT) if name == "actionlint" else Path(sys.executable).parent / name)]

    return tool


@pytest.fixture
def service(render: Render, tmp_path: Path) -> Path:
    """A copy of a service to break, with both pipelines."""
    return Path(shutil.copytree(render(**VARIANTS["default"]), tmp_path / "billing"))


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


# --- the real tools -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Validator:
    """A tool, the file that it checks, and a change of that file that the tool has to refuse."""

    tool: str
    arguments: tuple[str, ...]
    file: str
    healthy: str
    broken: str

    def __call__(self, service: Path, tool: Tool) -> subprocess.CompletedProcess[str]:
        return run(*tool(self.tool), *self.arguments, cwd=service)


def schema(name: str, file: str, healthy: str, broken: str, *options: str) -> Validator:
    return Validator("check-jsonschema", ("--builtin-schema", f"vendor.{name}", *options, file), file, healthy, broken)


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
    pytest.param(
        Validator("actionlint", (WORKFLOW,), WORKFLOW, "github.event_name", "github.event-name"), id="actionlint"
    ),
    pytest.param(
        Validator("compose", ("config", "--quiet"), "compose.yaml", "      migrate:", "      migration:"), id="compose"
    ),
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
    folder = npm.installed(BACKSTAGE)
    return lambda entities: run("node", "-e", CATALOG_CHECK, json.dumps(entities), cwd=folder)


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
    """Return the instructions as (`FROM`, `python:…`), with continued lines joined."""
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
    assert json.loads(stage["HEALTHCHECK"].partition(" CMD ")[2]) == ["python", "-m", "chassis.web.healthcheck"]


def test_pip_uv_and_the_dev_group_stay_out_of_the_final_stage(render: Render) -> None:
    service = render(**VARIANTS["default"])
    assert not any(re.search(r"\b(pip|uv|apt-get)\b", text) for name, text in final_stage(service) if name == "RUN")
    syncs = [text for name, text in instructions(service / "Dockerfile") if name == "RUN" and "uv sync" in text]
    assert len(syncs) == 2
    assert all("--frozen --no-dev" in sync for sync in syncs)
    assert "--no-editable" in syncs[-1]


def test_the_build_context_holds_exactly_the_files_that_the_dockerfile_copies(render: Render) -> None:
    service = render(**VARIANTS["default"])
    lines = (service / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = [text for name, text in instructions(service / "Dockerfile") if name == "COPY" and "--from" not in text]
    assert "*" in lines
    assert {source.split("/")[0] for text in copied for source in text.split()[:-1]} == allowed


def test_every_file_names_the_same_version_of_uv(render: Render) -> None:
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


def test_the_version_of_python_is_written_once(render: Render) -> None:
    service = render(**VARIANTS["default"])
    version = (service / ".python-version").read_text().strip()
    assert re.fullmatch(r"3\.\d+\.\d+", version)
    images = [text.split()[0] for name, text in instructions(service / "Dockerfile") if text.startswith("python:")]
    images += [job["image"] for job in GitLab(service, Event()).jobs_by_name.values() if "python" in job["image"]]
    assert {image.partition(":")[2].partition("-")[0] for image in images} == {version}
    assert len(images) >= 4
    # The other files read the version from .python-version.
    for name in ("Dockerfile.jinja", ".gitlab-ci.yml.jinja", "Makefile.jinja", ".github/workflows/ci.yaml.jinja"):
        assert version.rpartition(".")[0] not in (ROOT / "template" / name).read_text()
    oldest = set(re.findall(r">=(3\.\d+)", (service / "pyproject.toml").read_text()))
    assert oldest == set(re.findall(r">=(3\.\d+)", (service / "chassis/pyproject.toml").read_text()))
    assert f'target-version = "py{oldest.pop().replace(".", "")}"' in (service / "ruff.toml").read_text()


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
def test_compose_starts_the_chosen_broker_and_a_worker_with_its_address(render: Render, broker: str) -> None:
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
    # The data survives a new container, and only this machine reaches the ports.
    (volume,) = compose["services"][broker]["volumes"]
    assert volume.partition(":")[0] in compose["volumes"]
    assert all(port.startswith("127.0.0.1:") for port in compose["services"][broker]["ports"])
    assert "test" in compose["services"][broker]["healthcheck"]


@pytest.mark.parametrize("broker", ON_BROKER)
def test_compose_itself_takes_the_file_of_every_broker(render: Render, broker: str, tool: Tool) -> None:
    service = render(**ON_BROKER[broker])
    checked = run(*tool("compose"), "config", "--quiet", cwd=service)
    assert checked.returncode == 0, checked.stderr
    checked = run(*tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose.yaml", cwd=service)
    assert checked.returncode == 0, checked.stdout


# --- images -----------------------------------------------------------------------------------------------------------


def test_every_image_is_pinned(render: Render) -> None:
    service = render(**VARIANTS["default"])
    stages = {text.split(" AS ")[1] for name, text in instructions(service / "Dockerfile") if " AS " in text}
    images = {text.split()[0] for name, text in instructions(service / "Dockerfile") if name == "FROM"} - stages
    for variant in (VARIANTS["default"], *ON_BROKER.values()):
        compose = documents(render(**variant) / "compose.yaml")[0]["services"]
        images |= {one["image"] for one in compose.values() if not one["image"].endswith(":local")}
    for job in GitLab(service, Event()).jobs_by_name.values():
        images |= {job["image"], *job.get("services", [])}
    for overlay in OVERLAYS:
        for workload in kinds(manifests(service, overlay), "Deployment", "Job"):
            images |= {container["image"] for container in pod(workload)["containers"]}
    assert len(images) >= 10
    assert [image for image in images if not re.search(r":\d+(\.\d+)+(-[a-z-]+)?$", image)] == []


# --- code that waits for a person -----------------------------------------------------------------------------------

WAITS_FOR_A_PERSON = [
    "breakpoint()",
    "import pdb",
    "import ipdb\nipdb.set_trace()",
    "import debugpy\ndebugpy.wait_for_client()",
    "import sys\nsys.breakpointhook()",
    "import pytest\npytest.set_trace()",
    "import code\ncode.interact()",
    "from IPython import embed\nembed()",
    "print(1)",
    "from pprint import pprint\npprint(1)",
]


@pytest.mark.parametrize("code", WAITS_FOR_A_PERSON)
@pytest.mark.parametrize("file", ["src/billing/left.py", "tests/domain/test_left.py"])
def test_the_lint_gate_refuses_leftovers_of_debugging(service: Path, tool: Tool, file: str, code: str) -> None:
    (service / file).write_text(f'"""Left behind."""\n\n{code}\n')
    found = run(*tool("ruff"), "check", "--output-format", "concise", file, cwd=service)
    assert re.search(r" (T100|T20[13]|TID251) ", found.stdout), found.stdout


# --- ownership, bots and pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", EACH)
def test_code_owners_is_the_team_or_for_the_platforms_paths_its_team(render: Render, answers: dict[str, Any]) -> None:
    service = render(**answers)
    rules, ownership = CodeOwners((service / "CODEOWNERS").read_text()), Ownership.of(ROOT)
    name = answers.get("owner", f"{answers.get('domain', answers['service_name'])}-team").removeprefix("@")
    platform = answers.get("platform_team", f"@{name}")
    paths = [path.relative_to(service).as_posix() for path in service.rglob("*") if path.is_file()]
    for path in [*paths, "uv.lock", "local.mk", "compose.override.yaml", "src/any/new.py", "conventions.yml"]:
        is_theirs = ownership.owner_of(path) is Owner.TEAM and path != "conventions.yml"
        assert [owner for _, owner in rules.of(path)] == [f"@{name}" if is_theirs else platform], path


def test_renovate_leaves_the_files_of_the_template_alone(render: Render) -> None:
    service = render(**VARIANTS["default"])
    rules = json.loads((service / "renovate.json").read_text())["packageRules"]
    (frozen,) = (rule["matchFileNames"] for rule in rules if rule.get("enabled") is False)
    assert all(list(service.glob(pattern)) for pattern in frozen), "a pattern that fits no file"
    pinned = {"Dockerfile", "compose.yaml", ".gitlab-ci.yml", WORKFLOW, "chassis/**"}
    assert pinned <= set(frozen)
    assert not any(pattern.startswith("deploy/overlays") or pattern == "pyproject.toml" for pattern in frozen)


def test_the_pages_for_operation_list_every_setting_with_its_default(render: Render) -> None:
    docs = render(**VARIANTS["default"], messaging_style="events") / "docs"
    text = (docs / "runbook.md").read_text() + (docs / "messages.md").read_text()
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


def test_the_pages_for_operation_explain_every_503_that_the_chassis_gives(render: Render) -> None:
    docs = render(**VARIANTS["default"]) / "docs"
    section = (docs / "runbook.md").read_text().partition("## Answers of 503")[2].partition("\n## ")[0]
    of_identity = set(re.findall(r"503 `(\w+)`", (docs / "identity.md").read_text()))
    source = "".join(path.read_text() for path in (ROOT / "template/chassis/src/chassis").rglob("*.py"))
    given = set(re.findall(r'unavailable\([^)]*code="(\w+)"', source)) - {"unavailable"}
    assert len(given) >= 3
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) | of_identity == given


@pytest.mark.parametrize("answers", EACH)
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


@pytest.mark.parametrize("answers", EACH)
def test_the_first_decision_records_the_answers_and_the_verdict(render: Render, answers: dict[str, Any]) -> None:
    page = (render(**answers) / "docs/decisions/0001-a-service-of-its-own.md").read_text()
    given = [answers.get(name, "unknown") for name in ("limited_by_monolith", "separate_team", "ready_for_consistency")]
    assert re.findall(r"\? \| (.*) \|$", page, re.MULTILINE) == [
        {"yes": "yes", "no": "no", "unknown": "not sure yet"}[answer] for answer in given
    ]
    assert ("At least two answers are yes" in page) == (given.count("yes") > 1)
    assert ("The answers do not decide the question" in page) == (given.count("yes") < 2)
